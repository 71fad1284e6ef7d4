"""Matrices of derivatives with all their entries, which can be differentiated again."""

import tensorflow as tf

from bilevel_tf.autodiff.vectors import flatten


def dense_jacobian(function, weights, others):
    """∂f/∂w as a matrix `[m, n]`, differentiable in the weights and the others.

    One backward pass per row, side by side. Its own derivative is written out, a pass
    per row as well: to differentiate through the rows, as through those of
    `tf.GradientTape.jacobian`, makes XLA take the weights for constants, and so
    compile at every call.

    Args:
        function: f, a function of two lists of tensors that returns a tensor of m
            numbers.
        weights: w, a list of tensors, of n numbers together.
        others: What else f depends on, a list of tensors.
    """
    count = len(weights)

    def row(unit, point):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(point[:count])
            value = function(point[:count], point[count:])
        cotangent = tf.reshape(unit, tf.shape(value))
        return flatten(_gradients(tape, value, point[:count], cotangent))

    @tf.custom_gradient
    def matrix(*point):
        point = list(point)
        value = function(point[:count], point[count:])
        units = tf.eye(tf.size(value), dtype=value.dtype)

        def pulled(unit, cotangent):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                product = tf.reduce_sum(row(unit, point) * cotangent)
            return _gradients(tape, product, point)

        def backward(cotangents, variables=()):
            terms = tf.vectorized_map(lambda pair: pulled(*pair), (units, cotangents))
            gradients = [tf.reduce_sum(term, 0) for term in terms]
            # Frozen weights are constants here.
            return (gradients, [None] * len(variables)) if variables else gradients

        return tf.vectorized_map(lambda unit: row(unit, point), units), backward

    return matrix(*weights, *others)


def _gradients(tape, value, point, cotangent=None):
    return tape.gradient(
        value, point, output_gradients=cotangent, unconnected_gradients="zero"
    )
