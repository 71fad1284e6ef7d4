"""Dropout and noise whose strength is a hyperparameter."""

import keras
import tensorflow as tf

from bilevel_tf import _random
from bilevel_tf.autodiff.tangents import linear_map
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.pass_in_force import current_pass
from bilevel_tf.layers.noise.tuned_noise import TunedNoise


@keras.saving.register_keras_serializable("bilevel_tf")
class HyperDropout(TunedNoise, keras.layers.Dropout):
    """`keras.layers.Dropout` with a rate that may be a hyperparameter.

    Args:
        rate: A scalar hyperparameter of a space, or a number from 0 to 1.
        noise_shape: As in Keras.
        seed: As in Keras.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: If `rate` is out of range or vector-valued.

    Example:

    >>> x = HyperDropout(hp["dropout"])(x)
    """

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        rate = self._read_strength(rate, "rate", high=1)
        tuned = isinstance(rate, Hyperparameter)
        # Keras makes a seed generator for a positive rate.
        super().__init__(0.5 if tuned else rate, noise_shape, seed, **kwargs)
        self.rate = rate

    def call(self, inputs, training=False):
        if not isinstance(self.rate, Hyperparameter):
            return super().call(inputs, training=training)
        if not training:
            return inputs
        rate = self._strength(self.rate, inputs)
        shape = tf.shape(inputs)
        if self.noise_shape is not None:
            sizes = enumerate(self.noise_shape)
            shape = [shape[i] if size is None else size for i, size in sizes]
        draw = _random.uniform(shape, rate.dtype, self.seed_generator)
        kept = tf.cast(draw >= rate, inputs.dtype)
        scale = tf.cast(tf.math.divide_no_nan(1.0, 1.0 - rate), inputs.dtype)
        mask = kept * scale
        return linear_map(lambda x: x * mask, inputs, current_pass().tangents)

    def get_config(self):
        config = super().get_config()
        if isinstance(self.rate, Hyperparameter):
            config["rate"] = keras.saving.serialize_keras_object(self.rate)
        return config
