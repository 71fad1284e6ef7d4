"""Penalties on the size of weights whose factor may be a hyperparameter."""

import copy
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.configs import config_of
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.tunable import Tunable
from bilevel_tf.hyperparameters.values import mean_value, value_for


class NormPenalty(keras.regularizers.Regularizer):
    """Base class of penalties that are sums over entries, each times its factor.

    Attributes:
        of_outputs: Whether the penalty is on the outputs of a layer, whose first axis
            is that of the examples, and not on a weight. Every example then has its own
            factor in a perturbed pass. Defaults to `False`.
    """

    of_outputs = False

    def for_outputs(self) -> "NormPenalty":
        """The same penalty, on the outputs of a layer."""
        penalty = copy.copy(self)
        penalty.of_outputs = True
        return penalty

    def weighted_sum(
        self, factor: float | Hyperparameter, terms: tf.Tensor
    ) -> tf.Tensor:
        """The sum of terms, each times its factor, a scalar.

        Args:
            factor: The factor.
            terms: Tensor shaped as the weight or the outputs.
        """
        if self.of_outputs:
            value = value_for(factor, terms)
        else:
            value = mean_value(factor, terms.dtype)
        # A scalar factor need not be multiplied with every term.
        if value.shape.rank == 0:
            return value * tf.reduce_sum(terms)
        return tf.reduce_sum(value * terms)


@keras.saving.register_keras_serializable("bilevel_tf")
class L2(NormPenalty):
    """Penalty l2 · Σ w², as `keras.regularizers.L2`, with a factor that may be tuned.

    Args:
        l2: The factor: a number of at least 0, or a hyperparameter that stays there. A
            vector-valued hyperparameter has a factor per weight, or, if its shape
            broadcasts to the weight's, per unit or input; it takes a method that
            differentiates training. Defaults to 0.01, as in Keras.

    Raises:
        ValueError: If `l2` is neither a finite number of at least 0, nor a
            hyperparameter that stays there.

    Call:
        `regularizer(w)`, with a weight of any shape, gives a scalar. In a perturbed
        pass the factor is the mean over the examples; as an `activity_regularizer`
        in a `BilevelModel`, every example's own.

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-7, 1.0, initial=1e-4))
    >>> layer = bt.HyperDense(10, kernel_regularizer=bt.L2(hp["l2"]))
    """

    l2 = Tunable(low=0.0, vector=True)

    def __init__(self, l2: float | Hyperparameter = 0.01):
        self.l2 = l2

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        return self.weighted_sum(self.l2, tf.square(x))

    def get_config(self) -> dict[str, Any]:
        return {"l2": config_of(self.l2)}


@keras.saving.register_keras_serializable("bilevel_tf")
class L1(NormPenalty):
    """Penalty l1 · Σ |w|, as `keras.regularizers.L1`, with a factor that may be tuned.

    Args:
        l1: The factor: a number of at least 0, or a hyperparameter that stays there. A
            vector-valued hyperparameter has a factor per weight, or, if its shape
            broadcasts to the weight's, per unit or input; it takes a method that
            differentiates training. Defaults to 0.01, as in Keras.

    Raises:
        ValueError: If `l1` is neither a finite number of at least 0, nor a
            hyperparameter that stays there.

    Call:
        `regularizer(w)`, with a weight of any shape, gives a scalar. In a perturbed
        pass the factor is the mean over the examples; as an `activity_regularizer`
        in a `BilevelModel`, every example's own.

    Example:

    >>> hp = bt.HyperparameterSpace(l1=bt.LogUniform(1e-7, 1.0, initial=1e-4))
    >>> layer = bt.HyperDense(10, kernel_regularizer=bt.L1(hp["l1"]))
    """

    l1 = Tunable(low=0.0, vector=True)

    def __init__(self, l1: float | Hyperparameter = 0.01):
        self.l1 = l1

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        return self.weighted_sum(self.l1, tf.abs(x))

    def get_config(self) -> dict[str, Any]:
        return {"l1": config_of(self.l1)}


@keras.saving.register_keras_serializable("bilevel_tf")
class L1L2(NormPenalty):
    """Penalty l1 · Σ |w| + l2 · Σ w², as `keras.regularizers.L1L2`, with tuned factors.

    Args:
        l1: Factor of Σ |w|: a number of at least 0, or a hyperparameter that stays
            there, vector-valued or not, as for `L1`. Defaults to 0, as in Keras.
        l2: Factor of Σ w², likewise. Defaults to 0, as in Keras.

    Raises:
        ValueError: If a factor is neither a finite number of at least 0, nor a
            hyperparameter that stays there.

    Call:
        `regularizer(w)`, with a weight of any shape, gives a scalar. In a perturbed
        pass the factors are the means over the examples; as an `activity_regularizer`
        in a `BilevelModel`, every example's own.

    Example:

    >>> hp = bt.HyperparameterSpace(l1=bt.Positive(1e-3), l2=bt.Positive(1e-4))
    >>> penalty = bt.regularizers.L1L2(hp["l1"], hp["l2"])
    >>> layer = bt.HyperDense(10, kernel_regularizer=penalty)
    """

    l1 = Tunable(low=0.0, vector=True)
    l2 = Tunable(low=0.0, vector=True)

    def __init__(
        self, l1: float | Hyperparameter = 0.0, l2: float | Hyperparameter = 0.0
    ):
        self.l1 = l1
        self.l2 = l2

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        absolute = self.weighted_sum(self.l1, tf.abs(x))
        return absolute + self.weighted_sum(self.l2, tf.square(x))

    def get_config(self) -> dict[str, Any]:
        return {"l1": config_of(self.l1), "l2": config_of(self.l2)}
