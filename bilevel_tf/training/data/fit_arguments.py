"""The arguments of `fit` that are not data, checked before anything happens."""

import collections.abc
import inspect
import math
from typing import Any

import keras
import numpy as np

from bilevel_tf._arguments import check_count
from bilevel_tf.methods.method import Method

_COUNTS = ("batch_size", "steps_per_epoch", "validation_batch_size", "validation_steps")


def check_fit_arguments(method: Method, arguments: dict[str, Any]) -> None:
    """Check the numbers that `fit` was given, and the names of its arguments.

    Args:
        method: The method that the model is compiled with.
        arguments: What `fit` was given, by name.

    Raises:
        TypeError: If an argument is unknown, or `class_weight` is not a dict.
        ValueError: If a number is not whole or out of range, or if the method cannot
            take class weights.
    """
    known = inspect.signature(keras.Model.fit).parameters
    for name, value in arguments.items():
        if name not in known:
            raise TypeError(
                f"`fit` has no argument `{name}`. Those of `keras.Model.fit` are "
                f"{', '.join(list(known)[1:])}. Received: {name}={value!r}"
            )
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
    _check_class_weight(method, arguments.get("class_weight"))


def _check_frequency(frequency):
    if isinstance(frequency, collections.abc.Container) and not isinstance(
        frequency, (str, bytes)
    ):
        return
    check_count(_as_int(frequency), "validation_freq", 1)


def _check_class_weight(method, class_weight):
    if class_weight is None:
        return
    if not isinstance(class_weight, dict):
        raise TypeError(
            "`class_weight` must be a dict from classes to weights, such as "
            f"{{0: 1.0, 1: 5.0}}. Received: class_weight={class_weight!r}"
        )
    if method.inner_batches and class_weight:
        raise ValueError(
            f"{type(method).__name__} differentiates the training loss and "
            "does not see `class_weight`. Use `sample_weight` instead. "
            f"Received: class_weight={class_weight!r}"
        )


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
