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

    def _sum(self, factor, terms):
        """The sum of terms shaped as the weight, each times its factor."""
        value = factor_value(factor, terms.dtype)
        if isinstance(factor, Hyperparameter) and factor.is_perturbed:
            # With one factor per example the ordinary weights' penalty is the mean.
            value = tf.reduce_mean(value)
        # A scalar factor need not be multiplied with every term.
        if value.shape.rank == 0:
            return value * tf.reduce_sum(terms)
        return tf.reduce_sum(value * terms)


@keras.saving.register_keras_serializable("bilevel_tf")
class L2(_TunedRegularizer):
    """Penalty `l2 * sum(x²)`, as `keras.regularizers.L2`, with a tuned factor.

    Args:
        l2: A hyperparameter of a space, or a number. A vector-valued one has a
            factor per weight, or per unit or input where its shape broadcasts to the
            weight's; that takes a method that differentiates training.

    Raises:
        ValueError: If `l2` is neither, or negative.

    Example:

    >>> HyperDense(10, kernel_regularizer=L2(hp["weight_decay"]))
    """

    def __init__(self, l2=0.01):
        self.l2 = self._factor(l2, "l2")

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        return self._sum(self.l2, tf.square(x))

    def get_config(self):
        return {"l2": self._config(self.l2)}


@keras.saving.register_keras_serializable("bilevel_tf")
class L1(_TunedRegularizer):
    """Penalty `l1 * sum(|x|)`, as `keras.regularizers.L1`, with a tuned factor.

    Args:
        l1: A hyperparameter of a space, or a number; see `L2`.

    Raises:
        ValueError: If `l1` is neither, or negative.
    """

    def __init__(self, l1=0.01):
        self.l1 = self._factor(l1, "l1")

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        return self._sum(self.l1, tf.abs(x))

    def get_config(self):
        return {"l1": self._config(self.l1)}


@keras.saving.register_keras_serializable("bilevel_tf")
class L1L2(_TunedRegularizer):
    """Both penalties, each factor a hyperparameter or a number.

    Args:
        l1: Factor of `sum(|x|)`. Defaults to 0.
        l2: Factor of `sum(x²)`. Defaults to 0.

    Raises:
        ValueError: If a factor is neither, or negative.
    """

    def __init__(self, l1=0.0, l2=0.0):
        self.l1 = self._factor(l1, "l1")
        self.l2 = self._factor(l2, "l2")

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        return self._sum(self.l1, tf.abs(x)) + self._sum(self.l2, tf.square(x))

    def get_config(self):
        return {"l1": self._config(self.l1), "l2": self._config(self.l2)}
