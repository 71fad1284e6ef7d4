"""A positive number in an interval, on a logarithmic scale."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.scales.interval import Interval, lesser_share


@keras.saving.register_keras_serializable("bilevel_tf")
class LogUniform(Interval):
    """A positive number in an interval whose logarithm is what is tuned.

    It is the right scale for a number that may vary over orders of magnitude, such as a
    weight decay. The value is low · (high / low) ^ sigmoid(λ).

    Args:
        low: Lower end, positive, which is never reached.
        high: Upper end, which is never reached.
        initial: Initial value, strictly inside the interval. A list or array makes
            the hyperparameter vector-valued.
        perturbation_scale: Initial standard deviation σ of the perturbation of λ, on
            the unconstrained scale, positive. Defaults to 1, as in the Δ-STN paper.
            Only methods that perturb hyperparameters use it.
        learn_perturbation_scale: Whether σ is tuned together with λ. Defaults to
            `True`.
        prior: A `GaussianHyperprior` on λ, or `None` for a flat one. Defaults to
            `None`.

    Raises:
        ValueError: If `low` and `high` are not finite, positive numbers in this order,
            `initial` is not between them, `perturbation_scale` is not positive and
            finite, or a number cannot be held in the dtype of hyperparameters.
        TypeError: If `prior` is not a `GaussianHyperprior`, or
            `learn_perturbation_scale` is not a Boolean.

    Example:

    >>> scale = bt.LogUniform(1e-6, 1e-2, initial=1e-3)
    >>> round(float(scale.constrain(0.0)), 8)  # the middle of the logarithms
    0.0001
    """

    stacked = ("low", "high")

    def _check_ends(self):
        super()._check_ends()
        if self.low <= 0:
            raise ValueError(
                f"`low` must be positive on a logarithmic scale. "
                f"Received: low={self.low}"
            )

    def check_dtype(self, dtype: str) -> None:
        super().check_dtype(dtype)
        # A factor of the derivative.
        if self.high > np.finfo(dtype).max / (np.log(self.high) - np.log(self.low)):
            raise ValueError(
                f"`high` is so large that derivatives overflow in {dtype}, in which "
                f"hyperparameters are held. Received: low={self.low}, high={self.high}"
            )

    def constrain(self, unconstrained: tf.Tensor) -> tf.Tensor:
        unconstrained = tf.convert_to_tensor(unconstrained)
        dtype = unconstrained.dtype
        low, high = tf.constant(self.low, dtype), tf.constant(self.high, dtype)
        width = tf.constant(np.log(self.high) - np.log(self.low), dtype)
        part, lower = width * lesser_share(unconstrained), unconstrained < 0
        return tf.where(lower, low, high) * tf.exp(tf.where(lower, part, -part))

    def unconstrain(self, value: tf.Tensor) -> tf.Tensor:
        value = tf.convert_to_tensor(value)
        low, high = (tf.constant(end, value.dtype) for end in (self.low, self.high))
        # The logarithm of a ratio, such that a value next to an end is not that end.
        above = tf.math.log1p((value - low) / low)
        below = tf.math.log1p((high - value) / value)
        return tf.math.log(above) - tf.math.log(below)

    def _least_share(self, value):
        above = np.log1p((value - self.low) / self.low)
        below = np.log1p((self.high - value) / value)
        return np.minimum(above, below) / (np.log(self.high) - np.log(self.low))
