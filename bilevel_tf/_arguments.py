"""Checks of numbers and choices that users give, and how errors show what was given."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

_NUMBERS = (int, float, np.number)
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 6
_SHORT.maxstring = _SHORT.maxother = 120


def show(value: Any) -> str:
    """Return the `repr` of a value for an error message, cut if it is long.

    Of a large array, the shape and the range of its entries are shown.
    """
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        if value.size <= 6:
            return repr(value.tolist())
        shown = f"an array of shape {value.shape}"
        if value.dtype.kind in "iuf":
            shown += f" with entries from {value.min():g} to {value.max():g}"
        return shown
    return _SHORT.repr(value)


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
    if not (_is_number(value) and 0 <= value < float("inf")):
        raise ValueError(
            f"`{name}` must be non-negative and finite. Received: {name}={value!r}"
        )
    return float(value)


def check_positive(value: Any, name: str) -> float:
    """Return `value` as a float, or raise a `ValueError` unless 0 < value < ∞."""
    if not (_is_number(value) and 0 < value < float("inf")):
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


def _is_number(value):
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)
