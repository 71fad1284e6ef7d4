"""Checks of the numbers that `fit` takes."""

import collections.abc
import math
from typing import Any

import numpy as np

from bilevel_tf._arguments import check_count

_COUNTS = ("batch_size", "steps_per_epoch", "validation_batch_size", "validation_steps")


def check_fit_arguments(arguments: dict[str, Any]) -> None:
    """Raise a `ValueError` if a number given to `fit` cannot be meant.

    Args:
        arguments: What `fit` was given, by name.
    """
    for name in _COUNTS:
        if arguments.get(name) is not None:
            check_count(_as_int(arguments[name]), name, 1)
    for name in ("epochs", "initial_epoch"):
        check_count(_as_int(arguments.get(name, 0)), name, 0)
    share = arguments.get("validation_split", 0.0)
    if not isinstance(share, (float, int, np.number)) or not 0 <= share < 1:
        raise ValueError(
            "`validation_split` must be between 0 and 1: the share of the training "
            f"arrays that is left out, or 0. Received: validation_split={share!r}"
        )
    _check_frequency(arguments.get("validation_freq", 1))


def _check_frequency(frequency):
    if isinstance(frequency, collections.abc.Container) and not isinstance(
        frequency, (str, bytes)
    ):
        return
    check_count(_as_int(frequency), "validation_freq", 1)


def _as_int(value):
    return int(value) if isinstance(value, np.integer) else value


def choose_batch_size(count: int, batch_size: int | None, steps: int | None) -> int:
    """Return the size of the batches that Keras cuts arrays into.

    Args:
        count: Number of examples.
        batch_size: Size that the user asks for, or `None`.
        steps: Number of batches that the user asks for, or `None`.
    """
    if batch_size is not None:
        return int(batch_size)
    return math.ceil(count / steps) if steps else 32
