"""Scales with two ends."""

import math

import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.scales.scale import Scale

tfb = tfp.bijectors


class Interval(Scale):
    """What `Uniform`, `LogUniform` and `Integer` share: two ends."""

    def __init__(self, low, high, initial, **kwargs):
        self.low = low
        self.high = high
        self._check_ends()
        super().__init__(initial, **kwargs)

    def _check_ends(self):
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(
                f"`low` and `high` must be finite. Received: low={self.low}, "
                f"high={self.high}"
            )
        if not self.low < self.high:
            raise ValueError(
                f"`low` must be less than `high`. Received: low={self.low}, "
                f"high={self.high}"
            )

    @property
    def ends(self):
        return self.low, self.high

    def allows(self, value):
        return (value > self.low) & (value < self.high)

    def describe(self):
        return f"strictly between low={self.low} and high={self.high}"

    def get_config(self):
        return {"low": self.low, "high": self.high, **super().get_config()}


def stretched_sigmoid(low, high, dtype):
    return tfb.Sigmoid(low=tf.constant(low, dtype), high=tf.constant(high, dtype))
