"""Second derivatives of a loss, one product at a time."""

from collections.abc import Callable

import tensorflow as tf

from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.autodiff.vectors import flatten


class Hessian:
    """The gradient of a loss, linearised once at a point.

    The constructor computes the gradient and records its operations. Every product is
    then one backward pass through the recording. The solvers ask for many products at
    one point, and the recording makes these cheap.

    Args:
        loss: Function of two lists of tensors, weights and hyperparameters, that
            returns a scalar.
        weights: w, a list of tensors.
        hyperparameters: λ, a list of tensors.

    Attributes:
        loss: The loss at the point, a scalar.
        gradients: ∂L/∂w, a list of tensors with the shapes of the weights.

    Example:

    >>> from bilevel_tf.autodiff.hessian import Hessian
    >>> w, decay = tf.constant([1.0, 2.0]), tf.constant(3.0)
    >>> def loss(weights, hyperparameters):
    ...     return hyperparameters[0] * tf.reduce_sum(weights[0] ** 2)
    >>> hessian = Hessian(loss, [w], [decay])
    >>> [v.numpy().tolist() for v in hessian.product([tf.constant([1.0, 0.0])])]
    [[6.0, 0.0]]
    >>> [v.numpy().tolist() for v in hessian.cross_product([tf.constant([1.0, 0.0])])]
    [2.0]
    """

    def __init__(
        self,
        loss: Callable[[list[tf.Tensor], list[tf.Tensor]], tf.Tensor],
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
    ):
        self._weights = list(weights)
        self._hyperparameters = list(hyperparameters)
        with tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as self._recording:
            self._recording.watch([*self._weights, *self._hyperparameters])
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self._weights)
                self.loss = loss(self._weights, self._hyperparameters)
            connected = dense_gradients(tape, self.loss, self._weights)
            self._used = [g is not None for g in connected]
            self.gradients = [
                tf.zeros_like(w) if g is None else g
                for g, w in zip(connected, self._weights, strict=True)
            ]

    @property
    def unused_weights(self) -> list[int]:
        """Indices of the weights that the loss does not depend on."""
        return [i for i, used in enumerate(self._used) if not used]

    def product(self, vector: list[tf.Tensor]) -> list[tf.Tensor]:
        """Return H·v = ∂²L/∂w² · v, for a list v with the shapes of the weights."""
        return dense_gradients(
            self._recording,
            self.gradients,
            self._weights,
            output_gradients=vector,
            unconnected_gradients="zero",
        )

    def cross_product(self, vector: list[tf.Tensor]) -> list[tf.Tensor | None]:
        """Return vᵀ · ∂²L/∂w∂λ, for a list v with the shapes of the weights.

        The result is a list with the shapes of the hyperparameters. An entry is `None`
        if ∂L/∂w does not depend on that hyperparameter.
        """
        return dense_gradients(
            self._recording,
            self.gradients,
            self._hyperparameters,
            output_gradients=vector,
        )

    def dense(self) -> tf.Tensor:
        """Return H as a matrix `[n, n]`, where n counts the entries of all weights.

        A weight that the loss does not depend on has a one on the diagonal, so that H
        can be solved, and such a weight has the solution 0 if its right side is 0.
        """
        with self._recording:
            gradient = tf.concat([tf.reshape(g, [-1]) for g in self.gradients], 0)
        blocks = self._recording.jacobian(
            gradient, self._weights, unconnected_gradients="zero"
        )
        size = tf.size(gradient)
        matrix = tf.concat([tf.reshape(block, [size, -1]) for block in blocks], 1)
        if not self.unused_weights:
            return matrix
        ones = [
            tf.zeros_like(w) if used else tf.ones_like(w)
            for used, w in zip(self._used, self._weights, strict=True)
        ]
        return matrix + tf.linalg.diag(flatten(ones))
