"""A positive number in an interval, on a logarithmic scale."""

import math

import keras
import tensorflow_probability as tfp

from bilevel_tf.scales.interval import Interval, stretched_sigmoid

tfb = tfp.bijectors


@keras.saving.register_keras_serializable("bilevel_tf")
class LogUniform(Interval):
    """A positive number in an interval, uniform in its logarithm.

    Right for what varies over orders of magnitude, such as weight decay.

    Args:
        low: Lower end, positive, never reached.
        high: Upper end, never reached.
        initial: Initial value, strictly inside the interval.
        **kwargs: See `Scale`.
    """

    def _check_ends(self):
        super()._check_ends()
        if self.low <= 0:
            raise ValueError(
                f"`low` must be positive on a logarithmic scale. "
                f"Received: low={self.low}"
            )

    def bijector(self, dtype):
        logarithm = stretched_sigmoid(math.log(self.low), math.log(self.high), dtype)
        return tfb.Chain([tfb.Exp(), logarithm])
