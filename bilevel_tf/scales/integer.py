"""A whole number."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.scales.interval import Interval, stretched_sigmoid


@keras.saving.register_keras_serializable("bilevel_tf")
class Integer(Interval):
    """A whole number from `low` to `high`, both included, such as a count.

    The value is ⌊low + (high + 1 − low) · sigmoid(λ)⌋, as for the cutout counts of the
    Δ-STN paper. Rounding has no derivative, so that only methods that fit a best
    response can tune it.

    Args:
        low: Least value, a whole number.
        high: Greatest value, a whole number.
        initial: Initial value, a whole number from `low` to `high`. Its λ sits in the
            middle of all λ that are rounded to it. A list or array makes the
            hyperparameter vector-valued.
        perturbation_scale: Initial standard deviation σ of the perturbation of λ, on
            the unconstrained scale, positive. Defaults to 1, as in the Δ-STN paper.
            Only methods that perturb hyperparameters use it.
        learn_perturbation_scale: Whether σ is tuned together with λ. Defaults to
            `True`.
        prior: A `GaussianHyperprior` on λ, or `None` for a flat one. Defaults to
            `None`.

    Raises:
        ValueError: If `low` and `high` are not whole numbers in this order, `initial`
            is not a whole number between them, or `perturbation_scale` is not positive
            and finite.
        TypeError: If `prior` is not a `GaussianHyperprior`.

    Example:

    >>> hp = bt.HyperparameterSpace(holes=bt.Integer(0, 4, initial=1))
    >>> hp.values()
    {'holes': 1}
    """

    differentiable = False
    python_type = int

    def bijector(self, dtype: Any) -> tfp.bijectors.Bijector:
        return stretched_sigmoid(self.low, self.high + 1, dtype)

    def constrain(self, unconstrained: tf.Tensor) -> tf.Tensor:
        # A sigmoid that saturates in floating point would reach high + 1.
        floored = tf.floor(super().constrain(unconstrained))
        return tf.minimum(floored, tf.cast(self.high, floored.dtype))

    def unconstrain(self, value: tf.Tensor) -> tf.Tensor:
        return super().unconstrain(value + 0.5)

    def allows(self, value: np.ndarray) -> np.ndarray:
        whole = value == np.floor(value)
        return whole & (value >= self.low) & (value <= self.high)

    def describe(self) -> str:
        return f"a whole number from low={self.low} to high={self.high}"

    def _check_ends(self):
        super()._check_ends()
        if self.low != int(self.low) or self.high != int(self.high):
            raise ValueError(
                f"`low` and `high` must be whole numbers. Received: low={self.low}, "
                f"high={self.high}"
            )
