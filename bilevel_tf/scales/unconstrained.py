"""Any number."""

import math

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.scales.scale import Scale


@keras.saving.register_keras_serializable("bilevel_tf")
class Unconstrained(Scale):
    """Any finite number; value and unconstrained form λ are the same.

    Args:
        initial: Initial value, finite. A list or array makes the hyperparameter
            vector-valued.
        perturbation_scale: Initial standard deviation σ of the perturbation of λ, on
            the unconstrained scale, positive. Defaults to 1, as in the Δ-STN paper.
            Only methods that perturb hyperparameters use it.
        learn_perturbation_scale: Whether σ is tuned together with λ. Defaults to
            `True`.
        prior: A `GaussianHyperprior` on λ, or `None` for a flat one. Defaults to
            `None`.

    Raises:
        ValueError: If `initial` is not finite, `perturbation_scale` is not positive
            and finite, or a number cannot be held in the dtype of hyperparameters.
        TypeError: If `prior` is not a `GaussianHyperprior`, or
            `learn_perturbation_scale` is not a Boolean.

    Example:

    >>> hp = bt.HyperparameterSpace(log_rate=bt.Unconstrained(-2.5))
    >>> hp.values()
    {'log_rate': -2.5}
    """

    ends = (-math.inf, math.inf)
    stacked = ()

    def constrain(self, unconstrained: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(unconstrained)

    def unconstrain(self, value: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(value)

    def allows(self, value: np.ndarray) -> np.ndarray:
        return np.isfinite(value)

    def describe(self) -> str:
        return "finite"
