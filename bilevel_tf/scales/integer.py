"""A whole number."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.scales.interval import Interval, stretch, unstretch


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
        ValueError: If `low` and `high` are not whole numbers in this order or too
            large for the dtype of hyperparameters, `initial` is not a whole number
            between them, or `perturbation_scale` is not positive and finite.
        TypeError: If `prior` is not a `GaussianHyperprior`, or
            `learn_perturbation_scale` is not a Boolean.

    Example:

    >>> hp = bt.HyperparameterSpace(holes=bt.Integer(0, 4, initial=1))
    >>> hp.values()
    {'holes': 1}
    """

    differentiable = False
    python_type = int
    stacked = ("low", "high")

    def constrain(self, unconstrained: tf.Tensor) -> tf.Tensor:
        unconstrained = tf.convert_to_tensor(unconstrained)
        floored = tf.floor(stretch(unconstrained, self.low, self.high + 1))
        # Far out the end itself is reached, high + 1.
        return tf.minimum(floored, tf.constant(self.high, floored.dtype))

    def unconstrain(self, value: tf.Tensor) -> tf.Tensor:
        value = tf.convert_to_tensor(value) + 0.5
        return unstretch(value, self.low, self.high + 1)

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

    def check_dtype(self, dtype: str) -> None:
        # Rounding of λ then stays well below the width of a whole number.
        most = 2 ** (np.finfo(dtype).nmant - 1)
        if max(-self.low, self.high, self.high - self.low) > most:
            raise ValueError(
                f"`low` and `high` must be whole numbers from {-most} to {most}, and "
                f"no further apart than {most}, because {dtype}, in which "
                "hyperparameters are held, cannot tell others apart. For large counts "
                f"use LogUniform. Received: low={self.low}, high={self.high}"
            )
        super().check_dtype(dtype)

    def _least_share(self, value):
        # A whole number is in the middle of the values that are rounded to it.
        return np.full(np.shape(value), 0.5 / (self.high + 1 - self.low))
