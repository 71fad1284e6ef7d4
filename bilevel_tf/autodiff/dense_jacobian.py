"""Jacobian matrices with all their entries, which can be differentiated again."""

from collections.abc import Callable

import tensorflow as tf

from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.autodiff.vectors import flatten


def dense_jacobian(
    function: Callable[[list[tf.Tensor], list[tf.Tensor]], tf.Tensor],
    weights: list[tf.Tensor],
    others: list[tf.Tensor],
) -> tf.Tensor:
    """Return ∂f/∂w as a matrix `[m, n]`, differentiable in the weights and the others.

    There is one backward pass per row, and all run side by side. The derivative of the
    matrix is written out here, also as one pass per row. To differentiate through the
    rows themselves, as one can with `tf.GradientTape.jacobian`, would make XLA treat
    the weights as constants, and compile anew in every call.

    Args:
        function: f, a function of two lists of tensors that returns a tensor of m
            numbers.
        weights: w, a list of tensors with n numbers altogether.
        others: List of the other tensors that f depends on.
    """
    count = len(weights)

    def compute_row(unit, point):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point[:count])
            value = function(point[:count], point[count:])
        cotangent = tf.reshape(unit, tf.shape(value))
        return flatten(_compute_gradients(tape, value, point[:count], cotangent))

    @tf.custom_gradient
    def compute_matrix(*tensors):
        point = list(tensors)
        value = function(point[:count], point[count:])
        units = tf.eye(tf.size(value), dtype=value.dtype)

        def pull_back(unit, cotangent):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                product = tf.reduce_sum(compute_row(unit, point) * cotangent)
            return _compute_gradients(tape, product, point)

        def backward(cotangents, variables=()):
            pairs = (units, cotangents)
            terms = tf.vectorized_map(lambda pair: pull_back(*pair), pairs)
            gradients = [tf.reduce_sum(term, 0) for term in terms]
            # The only variables that f can read are frozen weights: constants here.
            return (gradients, [None] * len(variables)) if variables else gradients

        return tf.vectorized_map(lambda unit: compute_row(unit, point), units), backward

    return compute_matrix(*weights, *others)


def _compute_gradients(tape, value, point, cotangent=None):
    return dense_gradients(
        tape,
        value,
        point,
        output_gradients=cotangent,
        unconnected_gradients="zero",
    )
