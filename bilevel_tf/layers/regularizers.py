"""Regularizers whose factor is a hyperparameter."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter


def factor_value(factor, dtype):
    """A factor's value in force: a scalar, or `[batch]` during a perturbed pass."""
    value = factor.value() if isinstance(factor, Hyperparameter) else factor
    return keras.ops.convert_to_tensor(value, dtype=dtype)


class _TunedRegularizer(keras.regularizers.Regularizer):
    """What `L1`, `L2` and `L1L2` share."""

    def __call__(self, x):
        raise NotImplementedError

    @staticmethod
    def _factor(value, name):
        if isinstance(value, dict):
            value = keras.saving.deserialize_keras_object(value)
        if isinstance(value, Hyperparameter):
            if value.scale.shape != ():
                raise ValueError(
                    f"`{name}` must be a scalar hyperparameter. Received: "
                    f"'{value.name}' of shape {value.scale.shape}"
                )
            return value
        if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(
                f"`{name}` must be a hyperparameter such as space['weight_decay'] or "
                f"a non-negative number. Received: {name}={value!r}"
            )
        return float(value)

    @staticmethod
    def _config(value):
        if isinstance(value, Hyperparameter):
            return keras.saving.serialize_keras_object(value)
        return value

    def _scalar(self, factor, dtype):
        # With one factor per example the ordinary weights' penalty is the mean.
        return tf.reduce_mean(factor_value(factor, dtype))


@keras.saving.register_keras_serializable("bilevel_tf")
class L2(_TunedRegularizer):
    """Penalty `l2 * sum(x²)`, as `keras.regularizers.L2`, with a tuned factor.

    Args:
        l2: A scalar hyperparameter of a space, or a number.

    Raises:
        ValueError: If `l2` is neither, or negative, or vector-valued.

    Example:

    >>> HyperDense(10, kernel_regularizer=L2(hp["weight_decay"]))
    """

    def __init__(self, l2=0.01):
        self.l2 = self._factor(l2, "l2")

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        return self._scalar(self.l2, x.dtype) * tf.reduce_sum(tf.square(x))

    def get_config(self):
        return {"l2": self._config(self.l2)}


@keras.saving.register_keras_serializable("bilevel_tf")
class L1(_TunedRegularizer):
    """Penalty `l1 * sum(|x|)`, as `keras.regularizers.L1`, with a tuned factor.

    Args:
        l1: A scalar hyperparameter of a space, or a number.

    Raises:
        ValueError: If `l1` is neither, or negative, or vector-valued.
    """

    def __init__(self, l1=0.01):
        self.l1 = self._factor(l1, "l1")

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        return self._scalar(self.l1, x.dtype) * tf.reduce_sum(tf.abs(x))

    def get_config(self):
        return {"l1": self._config(self.l1)}


@keras.saving.register_keras_serializable("bilevel_tf")
class L1L2(_TunedRegularizer):
    """Both penalties, each factor a hyperparameter or a number.

    Args:
        l1: Factor of `sum(|x|)`. Defaults to 0.
        l2: Factor of `sum(x²)`. Defaults to 0.

    Raises:
        ValueError: If a factor is neither, or negative, or vector-valued.
    """

    def __init__(self, l1=0.0, l2=0.0):
        self.l1 = self._factor(l1, "l1")
        self.l2 = self._factor(l2, "l2")

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        absolute = self._scalar(self.l1, x.dtype) * tf.reduce_sum(tf.abs(x))
        squares = self._scalar(self.l2, x.dtype) * tf.reduce_sum(tf.square(x))
        return absolute + squares

    def get_config(self):
        return {"l1": self._config(self.l1), "l2": self._config(self.l2)}
