"""A number above zero."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow_probability as tfp

from bilevel_tf.scales.scale import Scale


@keras.saving.register_keras_serializable("bilevel_tf")
class Positive(Scale):
    """A number above zero, without upper end.

    The value is softplus(λ) = log(1 + exp(λ)).

    Args:
        initial: Initial value, positive. A list or array makes the hyperparameter
            vector-valued.
        perturbation_scale: Initial standard deviation σ of the perturbation of λ, on
            the unconstrained scale, positive. Defaults to 1, as in the Δ-STN paper.
            Only methods that perturb hyperparameters use it.
        learn_perturbation_scale: Whether σ is tuned together with λ. Defaults to
            `True`.
        prior: A `GaussianHyperprior` on λ, or `None` for a flat one. Defaults to
            `None`.

    Raises:
        ValueError: If `initial` is not positive and finite, or `perturbation_scale` is
            not.
        TypeError: If `prior` is not a `GaussianHyperprior`.

    Example:

    >>> hp = bt.HyperparameterSpace(stddev=bt.Positive(0.1))
    >>> hp.assign({"stddev": 30.0})
    >>> round(hp.values()["stddev"], 4)
    30.0
    """

    ends = (0.0, math.inf)

    def bijector(self, dtype: Any) -> tfp.bijectors.Bijector:
        return tfp.bijectors.Softplus()

    def allows(self, value: np.ndarray) -> np.ndarray:
        return value > 0

    def describe(self) -> str:
        return "positive"
