"""A positive number in an interval, on a logarithmic scale."""

import math
from typing import Any

import keras
import tensorflow_probability as tfp

from bilevel_tf.scales.interval import Interval, stretched_sigmoid


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
            `initial` is not between them, or `perturbation_scale` is not positive and
            finite.
        TypeError: If `prior` is not a `GaussianHyperprior`.

    Example:

    >>> scale = bt.LogUniform(1e-6, 1e-2, initial=1e-3)
    >>> round(float(scale.constrain(0.0)), 8)  # the middle of the logarithms
    0.0001
    """

    def _check_ends(self):
        super()._check_ends()
        if self.low <= 0:
            raise ValueError(
                f"`low` must be positive on a logarithmic scale. "
                f"Received: low={self.low}"
            )

    def bijector(self, dtype: Any) -> tfp.bijectors.Bijector:
        logarithm = stretched_sigmoid(math.log(self.low), math.log(self.high), dtype)
        return tfp.bijectors.Chain([tfp.bijectors.Exp(), logarithm])
