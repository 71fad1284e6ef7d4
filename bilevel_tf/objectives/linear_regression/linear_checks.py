"""Checks of what Bayesian linear regression is given."""

import keras
import numpy as np
import tensorflow as tf


def features(value):
    """X, or raise an error unless it is a matrix of floating-point numbers."""
    found = keras.ops.convert_to_tensor(value)
    if not found.dtype.is_floating:
        raise TypeError(
            "`features` must be floating-point numbers. "
            f"Received: features of dtype {found.dtype.name}"
        )
    if found.shape.rank != 2:
        raise ValueError(
            "`features` must have shape [N, n], a row for each example. "
            f"Received: features of shape {found.shape}"
        )
    return found


def tensor(value, dtype):
    """The value in that dtype."""
    return keras.ops.convert_to_tensor(value, dtype.name)


def check(regression):
    """Raise a `ValueError` where shapes do not match, or a precision is none."""
    _check_shapes(regression)
    _check_precision(regression.weight_precision, "weight_precision")
    _check_precision(regression.noise_precision, "noise_precision")


def _check_shapes(regression):
    x, y = regression.features.shape, regression.targets.shape
    if x[0] == 0 or x[1] == 0:
        raise ValueError(
            "`features` must have at least one row, an example, and one column. "
            f"Received: features of shape {x}"
        )
    if y.rank != 1:
        raise ValueError(
            "`targets` must have shape [N], one number for each row of `features`. "
            "For many columns make a regression of each: targets[:, 0], … "
            f"Received: targets of shape {y}"
        )
    if not y.is_compatible_with(x[:1]):
        raise ValueError(
            "`targets` must have as many numbers as `features` has rows. "
            f"Received: features of shape {x}, targets of shape {y}"
        )
    if regression.noise_precision.shape.rank != 0:
        raise ValueError(
            "`noise_precision` must be a scalar. Received: noise_precision of "
            f"shape {regression.noise_precision.shape}"
        )
    for name in ("weight_precision", "prior_mean"):
        shape = getattr(regression, name).shape
        if shape.rank != 0 and not shape.is_compatible_with(x[1:]):
            raise ValueError(
                f"`{name}` must be a scalar or have one number for each column of "
                f"`features`. Received: features of shape {x}, {name} of shape "
                f"{shape}"
            )


def _check_precision(tensor, name):
    value = tf.get_static_value(tensor)
    if value is not None and not np.all((value > 0) & np.isfinite(value)):
        raise ValueError(
            f"`{name}` must be positive and finite. Received: {name}={value.tolist()}"
        )
