"""Dropout with a rate that may be a hyperparameter."""

import numbers
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _random
from bilevel_tf.autodiff.tangents import apply_linear
from bilevel_tf.hyperparameters.configs import config_of
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.pass_in_force import current_pass
from bilevel_tf.hyperparameters.tunable import Tunable
from bilevel_tf.hyperparameters.values import value_for
from bilevel_tf.layers.counterparts import counterpart_of


@counterpart_of(keras.layers.Dropout)
@keras.saving.register_keras_serializable("bilevel_tf")
class HyperDropout(keras.layers.Dropout):
    """`keras.layers.Dropout` with a rate that may be a hyperparameter.

    A fixed rate makes it the Keras layer. In a perturbed pass every example has a rate
    of its own. Dropping a unit has no derivative in the rate, so that a tuned rate
    needs a method that fits a best response, such as Δ-STN.

    Args:
        rate: Share of the inputs that are dropped: a number from 0 to 1, or a scalar
            hyperparameter that stays there.
        noise_shape: Shape of the dropout mask, as in Keras: a tuple with one entry per
            axis of the inputs, 1 for an axis along which the mask is shared, and `None`
            for the size of that axis. Defaults to `None`, an entry per input.
        seed: Integer seed of the masks; `None` for a random one. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`, `trainable`,
            `activity_regularizer`.

    Raises:
        ValueError: If `rate` is not a number from 0 to 1, a hyperparameter can leave
            that range, or is vector-valued.

    Call:
        `layer(inputs, training=False)`: outputs have the shape of the inputs,
        `[batch, ...]`. Without `training` they are the inputs.

    Example:

    >>> hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.95, initial=0.5))
    >>> layer = bt.HyperDropout(hp["rate"])
    >>> layer(tf.ones([2, 3])).numpy().tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    rate = Tunable(low=0.0, high=1.0)

    def __init__(
        self,
        rate: float | Hyperparameter,
        noise_shape: tuple[int | None, ...] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        # Keras checks a number, and makes a seed generator if it is positive.
        number = rate if isinstance(rate, numbers.Real) else 0.5
        super().__init__(number, noise_shape, seed, **kwargs)
        self.rate = rate

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not isinstance(self.rate, Hyperparameter):
            return super().call(inputs, training=training)
        if not training:
            return inputs
        # Half precision is too coarse for draws.
        rate = value_for(self.rate, inputs, keras.config.floatx())
        shape = tf.shape(inputs)
        if self.noise_shape is not None:
            sizes = enumerate(self.noise_shape)
            shape = [shape[i] if size is None else size for i, size in sizes]
        draw = _random.uniform(shape, rate.dtype, self.seed_generator)
        kept = tf.cast(draw >= rate, inputs.dtype)
        scale = tf.cast(tf.math.divide_no_nan(1.0, 1.0 - rate), inputs.dtype)
        mask = kept * scale
        return apply_linear(lambda x: x * mask, inputs, current_pass().tangents)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": config_of(self.rate)}
