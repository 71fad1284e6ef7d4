"""Products with the Jacobian of a function of the weights."""

import tensorflow as tf


class Jacobian:
    """A function of the weights, linearised once at a point.

    Products in either direction are passes through what is recorded here. The
    forward one is the derivative of the backward one, which is linear in its
    cotangent.

    Args:
        function: Function of a list of tensors that returns a tensor.
        weights: The point, a list of tensors.

    Attributes:
        value: The function at the point.
    """

    def __init__(self, function, weights):
        self._weights = list(weights)
        with tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as self._recording:
            self._recording.watch(self._weights)
            self.value = function(self._weights)
        with tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as self._linear:
            self._cotangent = tf.zeros_like(self.value)
            self._linear.watch(self._cotangent)
            self._pulled = self.transposed_product(self._cotangent)

    def transposed_product(self, cotangent):
        """Jᵀu, a list shaped as the weights, for u shaped as the value."""
        return self._recording.gradient(
            self.value,
            self._weights,
            output_gradients=cotangent,
            unconnected_gradients="zero",
        )

    def product(self, vector):
        """J·v, shaped as the value, for a list v shaped as the weights."""
        return self._linear.gradient(
            self._pulled,
            self._cotangent,
            output_gradients=vector,
            unconnected_gradients="zero",
        )


def gauss_newton_product(predict, loss, weights):
    """v ↦ Jᵀ (∂²loss/∂outputs²) J v, with J the Jacobian of the outputs.

    Args:
        predict: Function of a list of weights that returns the outputs, a tensor.
        loss: Function of the outputs that returns a scalar.
        weights: List of tensors.
    """
    jacobian = Jacobian(predict, weights)
    outputs = tf.identity(jacobian.value)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as recording:
        recording.watch(outputs)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(outputs)
            value = loss(outputs)
        slope = tape.gradient(value, outputs, unconnected_gradients="zero")

    def product(vector):
        moved = jacobian.product(vector)
        curved = recording.gradient(
            slope, outputs, output_gradients=moved, unconnected_gradients="zero"
        )
        return jacobian.transposed_product(curved)

    return product
