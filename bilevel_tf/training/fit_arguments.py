"""The arguments of `fit` that are not data, checked before anything happens."""

import inspect
from typing import Any

import keras

from bilevel_tf._arguments import check_count
from bilevel_tf.methods.method import Method


def check_fit_arguments(method: Method, epochs: Any, others: dict[str, Any]) -> None:
    """Check the numbers of epochs and steps, and the arguments that Keras takes.

    Args:
        method: The method that the model is compiled with.
        epochs: As given to `fit`.
        others: The arguments of `keras.Model.fit` that `fit` passes on, by name.

    Raises:
        TypeError: If an argument is unknown, or `class_weight` is not a dict.
        ValueError: If a number is not whole or too small, or if the method cannot take
            class weights.
    """
    known = inspect.signature(keras.Model.fit).parameters
    for name, value in others.items():
        if name not in known:
            raise TypeError(
                f"`fit` has no argument `{name}`. Those of `keras.Model.fit` are "
                f"{', '.join(list(known)[1:])}. Received: {name}={value!r}"
            )
    check_count(epochs, "epochs", 0)
    check_count(others.get("initial_epoch", 0), "initial_epoch", 0)
    if (steps := others.get("steps_per_epoch")) is not None:
        check_count(steps, "steps_per_epoch", 1)
    frequency = others.get("validation_freq", 1)
    if not isinstance(frequency, (list, tuple, set, range)):
        check_count(frequency, "validation_freq", 1)
    _check_class_weight(method, others.get("class_weight"))


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
