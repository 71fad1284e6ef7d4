"""Checks of what a Bayesian linear regression is given."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def check_features(value: Any) -> tf.Tensor:
    """Return X as a tensor, or raise unless it is a matrix of floating-point numbers.

    Raises:
        TypeError: If its dtype is not floating-point.
        ValueError: If it is not a matrix.
    """
    found = keras.ops.convert_to_tensor(value)
    if not found.dtype.is_floating:
        raise TypeError(
            "`features` must be floating-point numbers. "
            f"Received: features of dtype {found.dtype.name}"
        )
    if found.shape.rank != 2:
        raise ValueError(
            "`features` must have shape [N, n], with one row for each example. "
            f"Received: features of shape {found.shape}"
        )
    return found


def to_tensor(value: Any, dtype: tf.DType) -> tf.Tensor:
    """Return the value as a tensor of that dtype."""
    return keras.ops.convert_to_tensor(value, dtype.name)


def check_tolerance(tolerance: float) -> None:
    """Raise a `ValueError` if the tolerance is negative or NaN."""
    if not tolerance >= 0:
        raise ValueError(
            f"`tolerance` must not be negative. Received: tolerance={tolerance!r}"
        )


def check_new_features(features: tf.Tensor, known: tf.TensorShape) -> None:
    """Raise a `ValueError` unless `features` has as many columns as those known."""
    if not features.shape.is_compatible_with([None, known[1]]):
        raise ValueError(
            "`features` must have as many columns as those that the regression was "
            f"made with, {known[1]}. Received: features of shape {features.shape}"
        )


def check_shapes(
    features: tf.Tensor,
    targets: tf.Tensor,
    weight_precision: tf.Tensor,
    noise_precision: tf.Tensor,
    prior_mean: tf.Tensor,
) -> None:
    """Raise a `ValueError` unless all shapes fit those of `features`."""
    x, y = features.shape, targets.shape
    if x[0] == 0 or x[1] == 0:
        raise ValueError(
            "`features` must have at least one row and one column. "
            f"Received: features of shape {x}"
        )
    if y.rank != 1:
        raise ValueError(
            "`targets` must have shape [N], one number for each row of `features`. If "
            "there are several columns of targets, make one regression for each: "
            f"targets[:, 0], … Received: targets of shape {y}"
        )
    if not y.is_compatible_with(x[:1]):
        raise ValueError(
            "`targets` must have as many numbers as `features` has rows. "
            f"Received: features of shape {x}, targets of shape {y}"
        )
    if noise_precision.shape.rank != 0:
        raise ValueError(
            "`noise_precision` must be a scalar. Received: noise_precision of "
            f"shape {noise_precision.shape}"
        )
    for name, tensor in (
        ("weight_precision", weight_precision),
        ("prior_mean", prior_mean),
    ):
        shape = tensor.shape
        if shape.rank != 0 and not shape.is_compatible_with(x[1:]):
            raise ValueError(
                f"`{name}` must be a scalar or have one number for each column of "
                f"`features`. Received: features of shape {x}, {name} of shape "
                f"{shape}"
            )


def check_informative(
    features: tf.Tensor, targets: tf.Tensor, prior_mean: tf.Tensor
) -> None:
    """Raise a `ValueError` if the evidence has no maximum whatever the precisions are.

    Values that are not known, because a graph is being traced, pass.
    """
    known = [tf.get_static_value(tensor) for tensor in (features, targets, prior_mean)]
    if any(value is None for value in known):
        return
    x, y, mean = known
    if not np.any(x):
        raise ValueError(
            "`features` must not be all zero, for the evidence to depend on "
            "`weight_precision`. Received: features that are all zero"
        )
    if not np.any(y - x @ np.broadcast_to(mean, x.shape[1:])):
        raise ValueError(
            "`targets` must differ from what `prior_mean` predicts: the evidence grows "
            "without end with both precisions if nothing is left to explain. Received: "
            f"targets that {'are all zero' if not np.any(y) else 'it predicts exactly'}"
        )


def check_precision(tensor: tf.Tensor, name: str) -> None:
    """Raise a `ValueError` unless a precision is positive and finite.

    A precision whose value is not known, because a graph is being traced, passes.
    """
    value = tf.get_static_value(tensor)
    if value is not None and not np.all((value > 0) & np.isfinite(value)):
        raise ValueError(
            f"`{name}` must be positive and finite. Received: {name}={value.tolist()}"
        )
