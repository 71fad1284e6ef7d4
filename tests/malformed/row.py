"""A malformed input and the error that a user sees."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One malformed input.

    Args:
        what: The input in a few words, for the name of the test.
        do: A function that gives the input to the library.
        error: The type of the error.
        says: Parts of the message: what is wrong, where, what was given, what would be
            right. All must be there.
    """

    what: str
    do: Callable[[], Any]
    error: type[Exception]
    says: tuple[str, ...]
