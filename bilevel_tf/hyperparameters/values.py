"""The value of a number or hyperparameter in the pass that is running now."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.pass_in_force import check_rows


def value_of(argument: float | Hyperparameter, dtype: str | None = None) -> tf.Tensor:
    """The value in force of a number or hyperparameter.

    Args:
        argument: A number or a `Hyperparameter`.
        dtype: Dtype of the result. Defaults to that of the hyperparameter's space, and
            to `keras.config.floatx()` for a number.

    Returns:
        A tensor of the hyperparameter's shape, a scalar for a number. In a perturbed
        pass, which methods that fit a best response run, a hyperparameter has one value
        per example: `[batch, *shape]`.

    Raises:
        TypeError: If `argument` is a serialised hyperparameter, which the constructor
            of a layer that is loaded did not read.

    Example:

    >>> hp = bt.HyperparameterSpace(stddev=bt.Positive(0.5))
    >>> float(bt.hyperparameters.value_of(hp["stddev"]))
    0.5
    """
    if isinstance(argument, Hyperparameter):
        value = argument.value()
        return keras.ops.convert_to_tensor(value, dtype or value.dtype)
    if isinstance(argument, dict):
        raise TypeError(
            "A serialised hyperparameter has no value. Read it in `__init__`, with "
            "bilevel_tf.Tunable, or with bilevel_tf.hyperparameters.read_config if it "
            f"is in a list or dict. Received: {argument!r}"
        )
    return keras.ops.convert_to_tensor(argument, dtype or keras.config.floatx())


def value_for(
    argument: float | Hyperparameter, tensor: tf.Tensor, dtype: str | None = None
) -> tf.Tensor:
    """The value in force of a number or hyperparameter, to combine with `tensor`.

    Args:
        argument: A number or a `Hyperparameter`. The value of a vector-valued one
            belongs to the last axes of `tensor`.
        tensor: Inputs or outputs of a layer, or targets of a loss, `[batch, ...]`.
        dtype: Dtype of the result. Defaults to that of `tensor`.

    Returns:
        A tensor that broadcasts over `tensor`: of the hyperparameter's shape, or, in a
        perturbed pass, `[batch, 1, …, 1, *shape]`, of the rank of `tensor`, with one
        value per example.

    Example:

    >>> hp = bt.HyperparameterSpace(factor=bt.Positive(3.0))
    >>> inputs = tf.ones([2, 4])
    >>> outputs = bt.hyperparameters.value_for(hp["factor"], inputs) * inputs
    """
    value = value_of(argument, dtype or tensor.dtype)
    if not (isinstance(argument, Hyperparameter) and argument.is_perturbed):
        return value
    check_rows(tensor, value, f"A layer or loss with hyperparameter '{argument.name}'")
    ones = tensor.shape.rank - 1 - len(argument.shape)
    return tf.reshape(value, [-1] + [1] * ones + list(argument.shape))


def mean_value(argument: float | Hyperparameter, dtype: str | None = None) -> tf.Tensor:
    """The value in force; in a perturbed pass the mean over the examples.

    Penalties and priors use it, which belong to the weights and not to an example.

    Args:
        argument: A number or a `Hyperparameter`.
        dtype: As for `value_of`.

    Returns:
        A tensor of the hyperparameter's shape, a scalar for a number.

    Example:

    >>> float(bt.hyperparameters.mean_value(0.25))
    0.25
    """
    value = value_of(argument, dtype)
    if isinstance(argument, Hyperparameter) and argument.is_perturbed:
        return tf.reduce_mean(value, 0)
    return value
