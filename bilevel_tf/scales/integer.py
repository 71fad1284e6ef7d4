"""A whole number."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.scales.interval import Interval, stretched_sigmoid


@keras.saving.register_keras_serializable("bilevel_tf")
class Integer(Interval):
    """A whole number from `low` to `high`, both included, such as a count.

    λ goes through a sigmoid stretched over [low, high + 1) and is rounded down when
    it is read, as the cutout counts of the Δ-STN paper are. The value has no gradient
    of its own: it is tuned by best-response methods, which need none.

    Args:
        low: Least value.
        high: Greatest value.
        initial: Initial value; its λ sits in the middle of its unit interval.
        **kwargs: See `Scale`.
    """

    def bijector(self, dtype):
        return stretched_sigmoid(self.low, self.high + 1, dtype)

    def constrain(self, unconstrained):
        # A sigmoid that saturates in floating point would reach high + 1.
        floored = tf.floor(super().constrain(unconstrained))
        return tf.minimum(floored, tf.cast(self.high, floored.dtype))

    def unconstrain(self, value):
        return super().unconstrain(value + 0.5)

    def allows(self, value):
        whole = value == np.floor(value)
        return whole & (value >= self.low) & (value <= self.high)

    def describe(self):
        return f"a whole number from low={self.low} to high={self.high}"

    def _check_ends(self):
        super()._check_ends()
        if self.low != int(self.low) or self.high != int(self.high):
            raise ValueError(
                f"`low` and `high` must be whole numbers. Received: low={self.low}, "
                f"high={self.high}"
            )
