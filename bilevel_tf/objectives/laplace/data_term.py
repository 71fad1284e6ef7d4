"""The likelihood's part of a log posterior, as a function of the weights."""

import tensorflow as tf

from bilevel_tf.objectives.laplace.output_curvature import (
    curvature_root,
    natural_parameters,
)


class DataTerm:
    """−log p(D|w), estimated on a batch: N times its mean loss.

    Args:
        network: The `Network`.
        loss: Its likelihood.
        hyperparameters: Their values, a list of tensors.
        batch: x, y and sample weights.
        data_size: N.

    Attributes:
        network: The network.
        hyperparameters: As given.
    """

    def __init__(self, network, loss, hyperparameters, batch, data_size):
        self.data_size = data_size
        self.network = network
        self._loss = loss
        self.hyperparameters = hyperparameters
        self._batch = batch

    def at(self, hyperparameters):
        """The same at other hyperparameters."""
        rest = self._batch, self.data_size
        return DataTerm(self.network, self._loss, hyperparameters, *rest)

    def value(self, weights):
        """A scalar."""
        loss = self.network.loss(
            weights, self.hyperparameters, self._batch, training=True, penalties=False
        )
        return tf.cast(self.data_size, loss.dtype) * loss

    def parameters(self, weights):
        """The likelihood's natural parameters f, `[batch, C]`, typed as the weights."""
        outputs = self.network.predict(weights, self.hyperparameters, self._batch)
        return natural_parameters(self._loss, tf.cast(outputs, weights[0].dtype))

    def curvature_root(self, weights, parameters):
        """R with R·Rᵀ = the likelihood's curvature in f, `[batch, C, C]`, of the data.

        Scaled so that the sum over the batch stands for that over the data.
        """
        count = tf.cast(tf.shape(parameters)[0], parameters.dtype)
        scale = tf.sqrt(tf.cast(self.data_size, parameters.dtype) / count)
        with self.network.at(weights, self.hyperparameters):
            return scale * curvature_root(self._loss, parameters)
