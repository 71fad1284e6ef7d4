"""Second derivatives of a loss, one product at a time."""

import tensorflow as tf


class Hessian:
    """The gradient of a loss, linearised once at a point.

    The gradient is computed here and its operations are recorded; every product is
    then one backward pass through the recording. The solvers ask for many products at
    one point, and this is what makes them cheap.

    Args:
        loss: Function of two lists of tensors, weights and hyperparameters, that
            returns a scalar.
        weights: List of tensors.
        hyperparameters: List of tensors.

    Attributes:
        loss: The loss at the point.
        gradients: ∂L/∂w, a list.
    """

    def __init__(self, loss, weights, hyperparameters):
        self._weights = list(weights)
        self._hyperparameters = list(hyperparameters)
        with tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as self._recording:
            self._recording.watch([*self._weights, *self._hyperparameters])
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self._weights)
                self.loss = loss(self._weights, self._hyperparameters)
            self._connected = tape.gradient(self.loss, self._weights)
            self.gradients = [
                tf.zeros_like(w) if g is None else tf.convert_to_tensor(g)
                for g, w in zip(self._connected, self._weights, strict=True)
            ]

    @property
    def unused_weights(self):
        """Indices of the weights that the loss does not depend on."""
        return [i for i, g in enumerate(self._connected) if g is None]

    def product(self, vector):
        """H·v = ∂²L/∂w² · v, for a list shaped as the weights."""
        return self._recording.gradient(
            self.gradients,
            self._weights,
            output_gradients=vector,
            unconnected_gradients="zero",
        )

    def cross_product(self, vector):
        """vᵀ · ∂²L/∂w∂λ, a list; `None` for a λ that does not enter ∂L/∂w."""
        return self._recording.gradient(
            self.gradients, self._hyperparameters, output_gradients=vector
        )

    def dense(self):
        """H as a matrix `[n, n]`, n the number of all weights together."""
        with self._recording:
            gradient = tf.concat([tf.reshape(g, [-1]) for g in self.gradients], 0)
        blocks = self._recording.jacobian(
            gradient, self._weights, unconnected_gradients="zero"
        )
        size = tf.size(gradient)
        return tf.concat([tf.reshape(block, [size, -1]) for block in blocks], 1)
