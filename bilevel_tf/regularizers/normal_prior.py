"""A normal prior on weights."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.regularizers.weight_prior import (
    WeightPrior,
    config_entry,
    half_squares,
    in_force,
    parameter,
    positive_parameter,
)

tfd = tfp.distributions


@keras.saving.register_keras_serializable("bilevel_tf")
class NormalPrior(WeightPrior):
    """w ~ N(m, A⁻¹), A diagonal.

    Not to be confused with `GaussianHyperprior`, which is one on a hyperparameter.

    Args:
        precision: A, a positive number, the same for all weights, or a hyperparameter.
            A vector-valued hyperparameter has a precision per weight, or per unit or
            input (automatic relevance determination) where its shape broadcasts to the
            weight's. Defaults to 1.
        mean: m, a number or hyperparameter, shaped likewise. Defaults to 0.
        data_size: N, the number of training examples.

    Raises:
        ValueError: If the precision is not, or might become not, positive and finite,
            the mean not finite, or `data_size` not a positive whole number.

    Example:

    >>> prior = bt.NormalPrior(hp["precision"], data_size=len(x_train))
    >>> bt.HyperDense(10, kernel_regularizer=prior)

    Reference:
        MacKay, "Bayesian interpolation", 1992; the learned mean: Graves, "Practical
        variational inference for neural networks", 2011.
    """

    needs_draw = False

    def __init__(self, precision=1.0, mean=0.0, *, data_size):
        super().__init__(data_size)
        self.precision = positive_parameter(precision, "precision")
        self.mean = parameter(mean, "mean")
        if not isinstance(self.mean, Hyperparameter) and not np.isfinite(self.mean):
            raise ValueError(f"`mean` must be finite. Received: mean={mean!r}")

    def distribution(self, dtype):
        """A `tfd.Normal`."""
        precision = in_force(self.precision, dtype)
        return tfd.Normal(in_force(self.mean, dtype), tf.math.rsqrt(precision))

    def log_kernel(self, weight):
        """−½ Σ A (w − m)²."""
        weight = tf.convert_to_tensor(weight)
        precision = in_force(self.precision, weight.dtype)
        distance = weight - in_force(self.mean, weight.dtype)
        # A scalar precision need not be multiplied with every term.
        if precision.shape.rank == 0:
            return -precision * half_squares(distance)
        return -0.5 * tf.reduce_sum(precision * tf.square(distance))

    def kl_divergence(self, posterior, draw=None, log_scale=None):
        """In closed form; see `WeightPrior.kl_divergence`."""
        precision = in_force(self.precision, posterior.dtype)
        if precision.shape.rank:
            prior = self.distribution(posterior.dtype)
            return tf.reduce_sum(tfd.kl_divergence(posterior, prior))
        # With one precision a fourth of the passes over the weights that TFP makes:
        # ½ A Σ (σ² + (μ − m)²) − Σ log σ − ½ u (1 + log A).
        distance = posterior.loc
        if self.mean != 0.0:
            distance -= in_force(self.mean, posterior.dtype)
        halves = half_squares(posterior.scale) + half_squares(distance)
        size = tf.cast(tf.size(distance), precision.dtype)
        constant = 0.5 * size * (1.0 + tf.math.log(precision))
        if log_scale is None:
            log_scale = tf.math.log(posterior.scale)
        return precision * halves - tf.reduce_sum(log_scale) - constant

    def get_config(self):
        """Arguments to make this prior again."""
        return {
            "precision": config_entry(self.precision),
            "mean": config_entry(self.mean),
            "data_size": self.data_size,
        }
