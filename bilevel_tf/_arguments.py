"""Checks of numbers that users give."""

import numpy as np

_NUMBERS = (int, float, np.number)


def count(value, name, least):
    """Return `value`, or raise a `ValueError` unless it is a whole number ≥ `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"`{name}` must be a whole number, at least {least}. "
            f"Received: {name}={value!r}"
        )
    return value


def non_negative(value, name):
    """Return `value` as a float, or raise a `ValueError`."""
    if not (isinstance(value, _NUMBERS) and 0 <= value < float("inf")):
        raise ValueError(
            f"`{name}` must be non-negative and finite. Received: {name}={value!r}"
        )
    return float(value)


def positive(value, name):
    """Return `value` as a float, or raise a `ValueError`."""
    if not (isinstance(value, _NUMBERS) and 0 < value < float("inf")):
        raise ValueError(
            f"`{name}` must be positive and finite. Received: {name}={value!r}"
        )
    return float(value)
