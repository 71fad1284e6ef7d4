"""A number above zero."""

import math

import keras
import numpy as np
import tensorflow as tf
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
        ValueError: If `initial` is not positive and finite, `perturbation_scale` is
            not, or a number cannot be held in the dtype of hyperparameters.
        TypeError: If `prior` is not a `GaussianHyperprior`, or
            `learn_perturbation_scale` is not a Boolean.

    Example:

    >>> hp = bt.HyperparameterSpace(stddev=bt.Positive(0.1))
    >>> hp.assign({"stddev": 30.0})
    >>> round(hp.values()["stddev"], 4)
    30.0
    """

    ends = (0.0, math.inf)
    stacked = ()

    def constrain(self, unconstrained: tf.Tensor) -> tf.Tensor:
        return tf.nn.softplus(unconstrained)

    def unconstrain(self, value: tf.Tensor) -> tf.Tensor:
        return tfp.math.softplus_inverse(value)

    def allows(self, value: np.ndarray) -> np.ndarray:
        return value > 0

    def describe(self) -> str:
        return "positive"
