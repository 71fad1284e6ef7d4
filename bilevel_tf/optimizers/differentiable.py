"""Which optimizers have steps that can be differentiated."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# By name: not every release of Keras has all of them.
_CLASSES = {
    "LossScaleOptimizer": "skips steps. Give its inner optimizer instead",
    "MultiOptimizer": "is several optimizers, each with weights of its own. Give one",
    "ScheduleFreeAdamW": "keeps two more copies of the weights and averages them. "
    "Use keras.optimizers.AdamW",
    "Lamb": "takes another kind of step for a weight whose entries are all 0, as those "
    "of a bias are at first. Use keras.optimizers.AdamW",
    "Lion": "goes along the sign of the gradient, whose derivative is 0, and so would "
    "be every hypergradient. Use keras.optimizers.AdamW, or a method that does not "
    "follow the optimizer, such as bilevel_tf.Neumann()",
}
_SETTINGS = {
    "use_ema": "averages the weights over steps",
    "gradient_accumulation_steps": "adds up the gradients of several steps",
    "loss_scale_factor": "expects the gradients of a scaled loss",
}
# Numbers to add to a gradient and a weight whose entries are all 0. Norms of these, of
# which the optimizer takes roots, then have finite derivatives; steps stay the same to
# rounding.
_OFFSETS = {"Adafactor": (1e-24, 1e-15), "Muon": (1e-15, 0.0)}


def check_kind(optimizer: keras.optimizers.Optimizer) -> None:
    """Raise a `ValueError` unless a step is a smooth function of gradients and slots.

    Args:
        optimizer: A Keras optimizer.
    """
    for name, reason in _CLASSES.items():
        kind = getattr(keras.optimizers, name, None)
        if kind is not None and isinstance(optimizer, kind):
            raise ValueError(
                f"The steps of {type(optimizer).__name__} cannot be differentiated: it "
                f"{reason}. Received: optimizer={optimizer!r}"
            )
    for name, reason in _SETTINGS.items():
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                f"An optimizer that {reason} cannot be differentiated step by step. "
                f"Received: {name}={value!r}"
            )


def is_built_in(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the class is one of Keras."""
    return type(optimizer).__module__.split(".")[0] == "keras"


def check_slope(optimizer: keras.optimizers.Optimizer, step: Callable) -> None:
    """Raise a `ValueError` if the derivative of a step is not that of what it computes.

    Args:
        optimizer: A Keras optimizer of the user's own, for the error.
        step: Function of two gradients and a weight, `[2, 2]`, that returns the weight
            after a step along each of them.
    """
    dtype = keras.backend.floatx()
    gradient = tf.constant([[0.5, -1.2], [0.3, 0.9]], dtype)
    weight = tf.constant([[1.0, 0.4], [-0.7, 2.0]], dtype)
    direction = tf.constant([[0.6, 0.2], [-0.4, 0.8]], dtype)

    def value_at(second):
        return tf.reduce_sum(direction * step(weight, second, weight))

    with tf.GradientTape() as tape:
        tape.watch(gradient)
        value = value_at(gradient)
    found = tape.gradient(value, gradient, unconnected_gradients="zero")
    found = float(tf.reduce_sum(found * direction))
    # Wide, because the numbers may be in single precision.
    width = 1e-2
    sides = [float(value_at(gradient + s * width * direction)) for s in (1.0, -1.0)]
    expected = (sides[0] - sides[1]) / (2.0 * width)
    if found == 0.0 or not np.isclose(found, expected, rtol=0.1, atol=1e-4):
        raise ValueError(
            f"The steps of {type(optimizer).__name__} cannot be differentiated: along "
            f"one direction of the gradient a step changes by {expected:.4g}, and its "
            f"derivative there is {found:.4g}. Neither a sign, rounding, a "
            "comparison nor `stop_gradient` has a derivative that tells how the step "
            "changes. Use an optimizer of Keras, or a method that does not follow the "
            "optimizer, such as bilevel_tf.Neumann(). "
            f"Received: optimizer={optimizer!r}"
        )


def offsets_of(optimizer: keras.optimizers.Optimizer) -> tuple[float, float]:
    """The numbers to add to gradients and weights that are all 0, or zeros."""
    for name, offsets in _OFFSETS.items():
        kind = getattr(keras.optimizers, name, None)
        if kind is not None and isinstance(optimizer, kind):
            return offsets
    return 0.0, 0.0


def keep_off_zero(tensors: list[Any], offset: float) -> list[Any]:
    """Add the offset to those tensors whose entries are all 0."""
    if not offset:
        return tensors

    def keep(tensor):
        zero = tf.reduce_all(tf.equal(tensor, 0))
        return tensor + tf.where(zero, tf.constant(offset, tensor.dtype), 0)

    return [keep(tensor) for tensor in tensors]
