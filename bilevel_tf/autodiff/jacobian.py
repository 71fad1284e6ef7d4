"""Products with the Jacobian of a function of the weights."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.autodiff.gradients import dense_gradients


class Jacobian:
    """A function of the weights, linearised once at a point.

    The constructor computes the function and records its operations. A product with Jᵀ
    is a backward pass through the recording. A product with J is the derivative of
    that backward pass, which is linear in its cotangent.

    Args:
        function: Function of a list of tensors that returns a tensor or a list of them.
        weights: The point, a list of tensors.

    Attributes:
        value: The function at the point, a tensor or a list of tensors.

    Example:

    >>> from bilevel_tf.autodiff.jacobian import Jacobian
    >>> jacobian = Jacobian(lambda w: w[0] ** 2, [tf.constant([1.0, 3.0])])
    >>> jacobian.product([tf.constant([1.0, 1.0])]).numpy().tolist()
    [2.0, 6.0]
    """

    def __init__(
        self, function: Callable[[list[tf.Tensor]], Any], weights: list[tf.Tensor]
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
            self._cotangent = tf.nest.map_structure(tf.zeros_like, self.value)
            self._linear.watch(self._cotangent)
            self._pulled = self.transposed_product(self._cotangent)

    def transposed_product(self, cotangent: Any) -> list[tf.Tensor]:
        """Return Jᵀu, a list shaped as the weights, for a u structured as `value`."""
        return dense_gradients(
            self._recording,
            self.value,
            self._weights,
            output_gradients=cotangent,
            unconnected_gradients="zero",
        )

    def product(self, vector: list[tf.Tensor]) -> Any:
        """Return J·v, structured as `value`, for a v shaped as the weights."""
        return dense_gradients(
            self._linear,
            self._pulled,
            self._cotangent,
            output_gradients=vector,
            unconnected_gradients="zero",
        )


def gauss_newton_product(
    predict: Callable[[list[tf.Tensor]], Any],
    loss: Callable[[Any], tf.Tensor],
    weights: list[tf.Tensor],
) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
    """Return the function v ↦ Jᵀ (∂²loss/∂outputs²) J v; J = ∂outputs/∂weights.

    The function takes and returns lists with the shapes of the weights. If there are
    several outputs, ∂²loss/∂outputs² is that of all of them together.

    Args:
        predict: Function of a list of weights that returns the outputs: a tensor, or a
            structure of tensors, of which those of floating-point numbers count.
        loss: Function of the outputs that returns a scalar.
        weights: The point, a list of tensors.
    """
    structures: list[Any] = []

    def predict_numbers(weights):
        structures.append(predict(weights))
        return [t for t in tf.nest.flatten(structures[-1]) if t.dtype.is_floating]

    jacobian = Jacobian(predict_numbers, weights)
    # Copies: one tensor may be two of the outputs, with a slope for each.
    outputs = [_copy(output) for output in jacobian.value]
    structure = _replace_numbers(structures[-1], outputs)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as recording:
        recording.watch(outputs)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(outputs)
            value = loss(structure)
        slopes = dense_gradients(tape, value, outputs, unconnected_gradients="zero")

    def multiply(vector):
        moved = jacobian.product(vector)
        curved = dense_gradients(
            recording,
            slopes,
            outputs,
            output_gradients=moved,
            unconnected_gradients="zero",
        )
        return jacobian.transposed_product(curved)

    return multiply


def _copy(tensor):
    """Copy a tensor with its mask, which a loss of Keras looks for."""
    copy, mask = tf.identity(tensor), _keras.get_mask(tensor)
    if mask is not None:
        _keras.set_mask(copy, mask)
    return copy


def _replace_numbers(structure, numbers):
    """Put tensors in the place of those that hold floating-point numbers."""
    left = iter(numbers)
    flat = [
        next(left) if t.dtype.is_floating else t for t in tf.nest.flatten(structure)
    ]
    return tf.nest.pack_sequence_as(structure, flat)
