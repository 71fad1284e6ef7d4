"""Checks of numbers and choices that users give."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_NUMBERS = (int, float, np.number)


def check_count(value: Any, name: str, least: int) -> int:
    """Return `value`, or raise a `ValueError` unless it is a whole number ≥ `least`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"`{name}` must be a whole number, at least {least}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def check_non_negative(value: Any, name: str) -> float:
    """Return `value` as a float, or raise a `ValueError` unless 0 ≤ value < ∞."""
    if not (isinstance(value, _NUMBERS) and 0 <= value < float("inf")):
        raise ValueError(
            f"`{name}` must be non-negative and finite. Received: {name}={value!r}"
        )
    return float(value)


def check_positive(value: Any, name: str) -> float:
    """Return `value` as a float, or raise a `ValueError` unless 0 < value < ∞."""
    if not (isinstance(value, _NUMBERS) and 0 < value < float("inf")):
        raise ValueError(
            f"`{name}` must be positive and finite. Received: {name}={value!r}"
        )
    return float(value)


def check_choice(value: Any, name: str, allowed: Sequence[str]) -> str:
    """Return `value`, or raise a `ValueError` unless it is one of `allowed`."""
    if value not in allowed:
        shown = ", ".join(repr(a) for a in allowed)
        raise ValueError(f"`{name}` must be one of {shown}. Received: {name}={value!r}")
    return value
