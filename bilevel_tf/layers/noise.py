"""Dropout and noise whose strength is a hyperparameter."""

import keras
import tensorflow as tf

from bilevel_tf.autodiff.tangents import linear_map
from bilevel_tf.hyperparameters import draws, perturbation
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.layers.hyper_layer import references


class _TunedNoise:
    """What `HyperDropout` and `HyperGaussianNoise` share: a strength that may be tuned.

    Outside a perturbed pass all examples have the current value; in one, each example
    has its own.
    """

    def _read_strength(self, value, name, high):
        """A number as it is, for Keras to check, or a hyperparameter, checked here."""
        if isinstance(value, dict):
            value = keras.saving.deserialize_keras_object(value)
        if not isinstance(value, Hyperparameter):
            return value
        if value.scale.shape != ():
            raise ValueError(
                f"`{name}` must be a scalar hyperparameter. Received: '{value.name}' "
                f"of shape {value.scale.shape}"
            )
        if not 0 <= value.initial <= high:
            raise ValueError(
                f"`{name}` must be between 0 and {high}. "
                f"Received: {name}={value.initial}, the initial value of '{value.name}'"
            )
        low_end, high_end = value.scale.ends
        if low_end < 0 or high_end > high:
            raise ValueError(
                f"`{name}` must stay between 0 and {high}. Received: '{value.name}', "
                f"which can be anything from {low_end} to {high_end}"
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
        return [*references(self), *references(self.activity_regularizer)]


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
        draw = draws.uniform(shape, rate.dtype, self.seed_generator)
        kept = tf.cast(draw >= rate, inputs.dtype)
        scale = tf.cast(tf.math.divide_no_nan(1.0, 1.0 - rate), inputs.dtype)
        mask = kept * scale
        scope = perturbation.current_scope()
        return linear_map(lambda x: x * mask, inputs, scope and scope.tangents)

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
        noise = draws.normal(shape, stddev.dtype, self.seed_generator)
        return inputs + tf.cast(stddev * noise, inputs.dtype)

    def get_config(self):
        config = super().get_config()
        if isinstance(self.stddev, Hyperparameter):
            config["stddev"] = keras.saving.serialize_keras_object(self.stddev)
        return config
