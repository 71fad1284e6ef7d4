"""Gaussian noise whose strength is a hyperparameter."""

import keras
import tensorflow as tf

from bilevel_tf import _random
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.layers.noise.tuned_noise import TunedNoise


@keras.saving.register_keras_serializable("bilevel_tf")
class HyperGaussianNoise(TunedNoise, keras.layers.GaussianNoise):
    """`keras.layers.GaussianNoise` with a standard deviation that may be tuned.

    Args:
        stddev: A scalar hyperparameter of a space, or a number from 0 to 1. A
            hyperparameter may exceed 1 if its range does.
        seed: As in Keras.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: If `stddev` is negative, a number above 1, or vector-valued.
    """

    def __init__(self, stddev, seed=None, **kwargs):
        stddev = self._read_strength(stddev, "stddev", high=float("inf"))
        tuned = isinstance(stddev, Hyperparameter)
        super().__init__(0.5 if tuned else stddev, seed, **kwargs)
        self.stddev = stddev

    def call(self, inputs, training=False):
        if not isinstance(self.stddev, Hyperparameter):
            return super().call(inputs, training=training)
        if not training:
            return inputs
        stddev = self._strength(self.stddev, inputs)
        shape = tf.shape(inputs)
        noise = _random.normal(shape, stddev.dtype, self.seed_generator)
        return inputs + tf.cast(stddev * noise, inputs.dtype)

    def get_config(self):
        config = super().get_config()
        if isinstance(self.stddev, Hyperparameter):
            config["stddev"] = keras.saving.serialize_keras_object(self.stddev)
        return config
