"""Weight penalties at response weights, one value per example."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.hyperparameters.values import value_of
from bilevel_tf.layers.response.response import Response
from bilevel_tf.regularizers.norms import L1, L1L2, L2

# By exact class: a subclass may compute something else.
_L2S = (L2, keras.regularizers.L2)
_L1S = (L1, keras.regularizers.L1)
_L1L2S = (L1L2, keras.regularizers.L1L2)


def response_penalty(
    regularizer: Any,
    response: Response,
    weight: keras.Variable,
    delta: tf.Tensor,
) -> tf.Tensor:
    """Penalty of every example at its own hyperparameters and weights w + Δw_i.

    The squared norm is exact, from ‖w‖² + 2⟨w, Δw_i⟩ + ‖Δw_i‖². The L1 norm, and any
    regularizer that is not known here, is taken to first order in Δw_i, in the spirit
    of the Δ-approximation (Eq. 3.11): the exact value needs every example's weights.

    Args:
        regularizer: A Keras or bilevel_tf regularizer, or a function of a tensor that
            returns a scalar.
        response: The `Response` of the weight.
        weight: w, the ordinary weight.
        delta: δ, `[batch, h]`.

    Returns:
        Tensor `[batch]`.

    Raises:
        ValueError: If a regularizer that is not known here returns no scalar.
    """
    weight = tf.convert_to_tensor(weight)
    delta = tf.cast(delta, weight.dtype)
    total = tf.zeros(tf.shape(delta)[:1], weight.dtype)
    if type(regularizer) in _L1S + _L1L2S:
        norm = tf.reduce_sum(tf.abs(weight))
        norm += response.inner(tf.sign(weight), delta)
        total += value_of(regularizer.l1, weight.dtype) * norm
    if type(regularizer) in _L2S + _L1L2S:
        norm = tf.reduce_sum(tf.square(weight))
        norm += 2.0 * response.inner(weight, delta)
        norm += response.squared_norm(delta)
        total += value_of(regularizer.l2, weight.dtype) * norm
    if type(regularizer) not in _L1S + _L2S + _L1L2S:
        with tf.GradientTape() as tape:
            tape.watch(weight)
            value = regularizer(weight)
        if value.shape.rank:
            raise ValueError(
                f"Regularizer {type(regularizer).__name__} must return a scalar. "
                f"Received: a tensor of shape {value.shape}. A hyperparameter that it "
                "reads has one value per example; take their mean."
            )
        (slope,) = dense_gradients(tape, value, [weight])
        total += value + response.inner(slope, delta)
    return total
