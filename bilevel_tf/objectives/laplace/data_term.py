"""The likelihood's part of a log posterior, as a function of the weights."""

import keras
import tensorflow as tf

from bilevel_tf.network.network import Network
from bilevel_tf.objectives.laplace.output_curvature import (
    curvature_root,
    natural_parameters,
)


class DataTerm:
    """−log p(D|w), estimated on a batch as N times the mean loss of the batch.

    Args:
        network: The network.
        loss: Its likelihood, a mean over examples.
        hyperparameters: A list of one tensor, the unconstrained vector `[h]`.
        batch: x, y and sample weights.
        data_size: N, the number of training examples.

    Attributes:
        network, hyperparameters, data_size: The arguments.
    """

    def __init__(
        self,
        network: Network,
        loss: keras.losses.Loss,
        hyperparameters: list[tf.Tensor],
        batch: tuple,
        data_size: int,
    ):
        self.data_size = data_size
        self.network = network
        self._loss = loss
        self.hyperparameters = hyperparameters
        self._batch = batch

    def at(self, hyperparameters: list[tf.Tensor]) -> "DataTerm":
        """Return the same term at other hyperparameters."""
        rest = self._batch, self.data_size
        return DataTerm(self.network, self._loss, hyperparameters, *rest)

    def value(self, weights: list[tf.Tensor]) -> tf.Tensor:
        """Return −log p(D|w), a scalar."""
        loss = self.network.loss(
            weights, self.hyperparameters, self._batch, training=True, penalties=False
        )
        return tf.cast(self.data_size, loss.dtype) * loss

    def parameters(self, weights: list[tf.Tensor]) -> tf.Tensor:
        """Return natural parameters f, `[batch, C]`, in the dtype of the weights."""
        outputs = self.network.predict(weights, self.hyperparameters, self._batch)
        return natural_parameters(self._loss, tf.cast(outputs, weights[0].dtype))

    def curvature_root(
        self, weights: list[tf.Tensor], parameters: tf.Tensor
    ) -> tf.Tensor:
        """Return R such that R·Rᵀ is the likelihood's curvature in f.

        It is scaled so that a sum over the batch estimates the sum over all data.

        Args:
            weights: Values of the trained weights.
            parameters: f from `parameters`, `[batch, C]`.

        Returns:
            A tensor `[batch, C, C]`.
        """
        count = tf.cast(tf.shape(parameters)[0], parameters.dtype)
        scale = tf.sqrt(tf.cast(self.data_size, parameters.dtype) / count)
        with self.network.at(weights, self.hyperparameters):
            return scale * curvature_root(self._loss, parameters)
