"""Products with the Jacobian of a function of the weights."""

from collections.abc import Callable

import tensorflow as tf

from bilevel_tf.autodiff.gradients import dense_gradients


class Jacobian:
    """A function of the weights, linearised once at a point.

    The constructor computes the function and records its operations. A product with Jᵀ
    is a backward pass through the recording. A product with J is the derivative of
    that backward pass, which is linear in its cotangent.

    Args:
        function: Function of a list of tensors that returns a tensor.
        weights: The point, a list of tensors.

    Attributes:
        value: The function at the point, a tensor.

    Example:

    >>> from bilevel_tf.autodiff.jacobian import Jacobian
    >>> jacobian = Jacobian(lambda w: w[0] ** 2, [tf.constant([1.0, 3.0])])
    >>> jacobian.product([tf.constant([1.0, 1.0])]).numpy().tolist()
    [2.0, 6.0]
    """

    def __init__(
        self, function: Callable[[list[tf.Tensor]], tf.Tensor], weights: list[tf.Tensor]
    ):
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

    def transposed_product(self, cotangent: tf.Tensor) -> list[tf.Tensor]:
        """Return Jᵀu, a list shaped as the weights, for a u shaped as `value`."""
        return dense_gradients(
            self._recording,
            self.value,
            self._weights,
            output_gradients=cotangent,
            unconnected_gradients="zero",
        )

    def product(self, vector: list[tf.Tensor]) -> tf.Tensor:
        """Return J·v, a tensor shaped as `value`, for a v shaped as the weights."""
        return dense_gradients(
            self._linear,
            self._pulled,
            [self._cotangent],
            output_gradients=vector,
            unconnected_gradients="zero",
        )[0]


def gauss_newton_product(
    predict: Callable[[list[tf.Tensor]], tf.Tensor],
    loss: Callable[[tf.Tensor], tf.Tensor],
    weights: list[tf.Tensor],
) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
    """Return the function v ↦ Jᵀ (∂²loss/∂outputs²) J v; J = ∂outputs/∂weights.

    The function takes and returns lists with the shapes of the weights.

    Args:
        predict: Function of a list of weights that returns the outputs, a tensor.
        loss: Function of the outputs that returns a scalar.
        weights: The point, a list of tensors.
    """
    jacobian = Jacobian(predict, weights)
    outputs = tf.identity(jacobian.value)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as recording:
        recording.watch(outputs)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(outputs)
            value = loss(outputs)
        slope = tape.gradient(value, outputs, unconnected_gradients="zero")

    def multiply(vector):
        moved = jacobian.product(vector)
        curved = recording.gradient(
            slope, outputs, output_gradients=moved, unconnected_gradients="zero"
        )
        return jacobian.transposed_product(curved)

    return multiply
