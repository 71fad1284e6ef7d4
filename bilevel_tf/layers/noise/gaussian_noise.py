"""Gaussian noise with a standard deviation that may be a hyperparameter."""

import numbers
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _random
from bilevel_tf.hyperparameters.configs import config_of
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.tunable import Tunable
from bilevel_tf.hyperparameters.values import value_for
from bilevel_tf.layers.counterparts import counterpart_of


@counterpart_of(keras.layers.GaussianNoise)
@keras.saving.register_keras_serializable("bilevel_tf")
class HyperGaussianNoise(keras.layers.GaussianNoise):
    """`keras.layers.GaussianNoise` with a standard deviation that may be tuned.

    A fixed standard deviation makes it the Keras layer. In a perturbed pass every
    example has one of its own.

    Args:
        stddev: Standard deviation of the noise: a number from 0 to 1, as in Keras, or
            a scalar hyperparameter that stays at least 0; it may exceed 1.
        seed: Integer seed of the noise; `None` for a random one. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`,
            `activity_regularizer`.

    Raises:
        ValueError: If `stddev` is not a number from 0 to 1, a hyperparameter can become
            negative, or is vector-valued.

    Call:
        `layer(inputs, training=False)`: outputs have the shape of the inputs,
        `[batch, ...]`. Without `training` they are the inputs.

    Example:

    >>> hp = bt.HyperparameterSpace(stddev=bt.Positive(0.1))
    >>> layer = bt.HyperGaussianNoise(hp["stddev"])
    >>> layer(tf.ones([2, 3])).numpy().tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    stddev = Tunable(low=0.0)

    def __init__(
        self, stddev: float | Hyperparameter, seed: int | None = None, **kwargs: Any
    ):
        # Keras checks a number, and makes a seed generator if it is positive.
        number = stddev if isinstance(stddev, numbers.Real) else 0.5
        super().__init__(number, seed, **kwargs)
        self.stddev = stddev

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not isinstance(self.stddev, Hyperparameter):
            return super().call(inputs, training=training)
        if not training:
            return inputs
        # Half precision is too coarse for draws.
        stddev = value_for(self.stddev, inputs, keras.config.floatx())
        noise = _random.normal(tf.shape(inputs), stddev.dtype, self.seed_generator)
        return inputs + tf.cast(stddev * noise, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stddev": config_of(self.stddev)}
