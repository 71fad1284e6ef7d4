"""A number above zero."""

import math

import keras
import tensorflow_probability as tfp

from bilevel_tf.scales.scale import Scale

tfb = tfp.bijectors


@keras.saving.register_keras_serializable("bilevel_tf")
class Positive(Scale):
    """A number above zero without upper end; free through a softplus.

    Args:
        initial: Initial value, positive.
        **kwargs: See `Scale`.
    """

    def bijector(self, dtype):
        return tfb.Softplus()

    @property
    def ends(self):
        return 0.0, math.inf

    def allows(self, value):
        return value > 0

    def describe(self):
        return "positive"
