"""Scales with two ends."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from bilevel_tf._arguments import show
from bilevel_tf.scales.hyperprior import GaussianHyperprior
from bilevel_tf.scales.numbers import check_magnitude, show_bad
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
        received = f"Received: low={show(self.low)}, high={show(self.high)}"
        if not (_is_finite(self.low) and _is_finite(self.high)):
            raise ValueError(f"`low` and `high` must be finite numbers. {received}")
        if not self.low < self.high:
            raise ValueError(f"`low` must be less than `high`. {received}")

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high

    def allows(self, value: np.ndarray) -> np.ndarray:
        return (value > self.low) & (value < self.high)

    def describe(self) -> str:
        return f"strictly between low={self.low} and high={self.high}"

    def check_dtype(self, dtype: str) -> None:
        check_magnitude(self.low, "low", dtype)
        check_magnitude(self.high, "high", dtype)
        kind = np.dtype(dtype).type
        with np.errstate(over="ignore"):
            width = kind(self.high) - kind(self.low)
        if not 0 < width < math.inf:
            raise ValueError(
                f"`low` and `high` must have a distance in {dtype}, in which "
                "hyperparameters are held, that is above 0 and finite. "
                f"Received: low={self.low}, high={self.high}"
            )
        super().check_dtype(dtype)

    def check_in_dtype(self, value: np.ndarray, argument: str, dtype: str) -> None:
        super().check_in_dtype(value, argument, dtype)
        close = self._least_share(value) < np.finfo(dtype).tiny
        if np.any(close):
            raise ValueError(
                f"`{argument}` must keep a distance from low={self.low} and "
                f"high={self.high} that is not lost in {dtype}, in which "
                "hyperparameters are held: so close to an end a value cannot be tuned. "
                f"Received: {argument}={show_bad(value, close)}"
            )

    def _least_share(self, value):
        """The distance to the nearer end, as a share of the unconstrained width."""
        width = float(self.high) - float(self.low)
        return np.minimum(value - self.low, self.high - value) / width

    def get_config(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, **super().get_config()}


def stretch(unconstrained: tf.Tensor, low: Any, high: Any) -> tf.Tensor:
    """Return low + (high − low) · sigmoid(u), with both ends exact far out.

    Args:
        unconstrained: u, a tensor.
        low: A number, or an array that broadcasts to u.
        high: Likewise.

    Returns:
        A tensor, whose derivatives are finite at any finite u.
    """
    low, high = (tf.constant(end, unconstrained.dtype) for end in (low, high))
    part = (high - low) * lesser_share(unconstrained)
    return tf.where(unconstrained < 0, low + part, high - part)


def lesser_share(unconstrained: tf.Tensor) -> tf.Tensor:
    """Return sigmoid(−|u|), the share of an interval on the side of its nearer end.

    No exponential of a positive number occurs, which would overflow, and would do so in
    the derivative even if its value were not used.
    """
    decay = tf.exp(tf.where(unconstrained < 0, unconstrained, -unconstrained))
    return decay / (1.0 + decay)


def unstretch(value: tf.Tensor, low: Any, high: Any) -> tf.Tensor:
    """Return log((v − low) / (high − v)), the inverse of `stretch`."""
    low, high = (tf.constant(end, value.dtype) for end in (low, high))
    return tf.math.log(value - low) - tf.math.log(high - value)


def _is_finite(end):
    if isinstance(end, bool) or not isinstance(end, (int, float, np.number)):
        return False
    try:
        return math.isfinite(end)
    except OverflowError:  # A whole number beyond all floating-point numbers.
        return False
