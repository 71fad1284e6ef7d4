"""What layers with a tuned noise share."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.layers.hyper.hyper_layer import references


class TunedNoise:
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
