"""Dropout and noise whose strength is a hyperparameter."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter


class _TunedNoise:
    """What `HyperDropout` and `HyperGaussianNoise` share: a strength that may be tuned.

    Outside a perturbed pass all examples have the current value; in one, each example
    has its own.
    """

    def _read_strength(self, value, name, low, high):
        if isinstance(value, dict):
            value = keras.saving.deserialize_keras_object(value)
        number = value.initial if isinstance(value, Hyperparameter) else value
        if isinstance(value, Hyperparameter) and value.scale.shape != ():
            raise ValueError(
                f"`{name}` must be a scalar hyperparameter. Received: '{value.name}' "
                f"of shape {value.scale.shape}"
            )
        if not low <= number <= high:
            raise ValueError(
                f"`{name}` must be between {low} and {high}. Received: {name}={number}"
            )
        return value

    def _strength(self, value, inputs):
        """The value in force, shaped to broadcast over `inputs`."""
        value = tf.convert_to_tensor(value.value())
        if value.shape.rank == 0:
            return value
        return tf.reshape(value, [-1] + [1] * (inputs.shape.rank - 1))

    def hyperparameters(self):
        """References that the layer holds."""
        return [v for v in vars(self).values() if isinstance(v, Hyperparameter)]


@keras.saving.register_keras_serializable("bilevel_tf")
class HyperDropout(_TunedNoise, keras.layers.Dropout):
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
        rate = self._read_strength(rate, "rate", 0, 1)
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
        draw = keras.random.uniform(shape, dtype=rate.dtype, seed=self.seed_generator)
        kept = tf.cast(draw >= rate, rate.dtype)
        return inputs * tf.cast(tf.math.divide_no_nan(kept, 1.0 - rate), inputs.dtype)

    def get_config(self):
        config = super().get_config()
        if isinstance(self.rate, Hyperparameter):
            config["rate"] = keras.saving.serialize_keras_object(self.rate)
        return config


@keras.saving.register_keras_serializable("bilevel_tf")
class HyperGaussianNoise(_TunedNoise, keras.layers.GaussianNoise):
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
        high = 1 if isinstance(stddev, (int, float)) else float("inf")
        stddev = self._read_strength(stddev, "stddev", 0, high)
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
        noise = keras.random.normal(shape, dtype=stddev.dtype, seed=self.seed_generator)
        return inputs + tf.cast(stddev * noise, inputs.dtype)

    def get_config(self):
        config = super().get_config()
        if isinstance(self.stddev, Hyperparameter):
            config["stddev"] = keras.saving.serialize_keras_object(self.stddev)
        return config
