"""Optimizers whose first step does not depend on the size of the gradient."""

import keras
import tensorflow as tf

from bilevel_tf.optimizers.functional import FunctionalOptimizer
from bilevel_tf.optimizers.tuned import TunedOptimizer


def first_step_forgets_gradient(
    optimizer: keras.optimizers.Optimizer | TunedOptimizer,
) -> bool:
    """Whether the first step from fresh slots is the same whatever the gradient is.

    Adam divides the gradient by the root of its mean square, which after one step is
    the gradient itself: only the sign is left.

    Args:
        optimizer: A Keras optimizer, or a `TunedOptimizer`.
    """
    if isinstance(optimizer, TunedOptimizer):
        optimizer = optimizer.optimizer
    if optimizer.clipvalue is not None:
        # How much is clipped depends on the gradients of the training.
        return False
    dtype = keras.backend.floatx()
    weight = tf.constant([[1.0, 0.4], [-0.7, 2.0]], dtype)
    gradient = tf.constant([[0.5, -1.2], [0.3, 0.9]], dtype)
    step = FunctionalOptimizer(optimizer, [weight])
    with tf.GradientTape() as tape:
        tape.watch(gradient)
        (after,), _ = step([gradient], [weight], step.initial_state())
        moved = tf.reduce_sum(tf.abs(after - weight))
    slope = tape.gradient(moved, gradient, unconnected_gradients="zero")
    return bool(tf.reduce_max(tf.abs(slope * gradient)) < 1e-3 * moved)
