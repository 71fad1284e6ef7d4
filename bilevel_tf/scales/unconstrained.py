"""Any number."""

import math

import keras
import numpy as np
import tensorflow_probability as tfp

from bilevel_tf.scales.scale import Scale

tfb = tfp.bijectors


@keras.saving.register_keras_serializable("bilevel_tf")
class Unconstrained(Scale):
    """Any finite number; its unconstrained value is itself.

    Args:
        initial: Initial value.
        **kwargs: See `Scale`.
    """

    def bijector(self, dtype):
        return tfb.Identity()

    @property
    def ends(self):
        return -math.inf, math.inf

    def allows(self, value):
        return np.isfinite(value)

    def describe(self):
        return "finite"
