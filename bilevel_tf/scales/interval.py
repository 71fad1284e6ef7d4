"""Scales with two ends."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.typing import ArrayLike

from bilevel_tf.scales.hyperprior import GaussianHyperprior
from bilevel_tf.scales.scale import Scale


class Interval(Scale):
    """Base class of `Uniform`, `LogUniform` and `Integer`: a scale with two ends."""

    def __init__(
        self,
        low: float,
        high: float,
        initial: ArrayLike,
        *,
        perturbation_scale: float = 1.0,
        learn_perturbation_scale: bool = True,
        prior: GaussianHyperprior | None = None,
    ):
        self.low = low
        self.high = high
        self._check_ends()
        super().__init__(
            initial,
            perturbation_scale=perturbation_scale,
            learn_perturbation_scale=learn_perturbation_scale,
            prior=prior,
        )

    def _check_ends(self):
        if not (_is_finite(self.low) and _is_finite(self.high)):
            raise ValueError(
                "`low` and `high` must be finite numbers. "
                f"Received: low={self.low}, high={self.high}"
            )
        if not self.low < self.high:
            raise ValueError(
                f"`low` must be less than `high`. Received: low={self.low}, "
                f"high={self.high}"
            )

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high

    def allows(self, value: np.ndarray) -> np.ndarray:
        return (value > self.low) & (value < self.high)

    def describe(self) -> str:
        return f"strictly between low={self.low} and high={self.high}"

    def get_config(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, **super().get_config()}


def stretched_sigmoid(low: float, high: float, dtype: Any) -> tfp.bijectors.Sigmoid:
    """The bijector from all real numbers to the interval from `low` to `high`."""
    return tfp.bijectors.Sigmoid(
        low=tf.constant(low, dtype), high=tf.constant(high, dtype)
    )


def _is_finite(end):
    return isinstance(end, (int, float, np.number)) and math.isfinite(end)
