"""A model written twice: with the library, and by hand in plain TensorFlow."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt

# Small, so that λ stays where it is.
HYPER_RATE = 0.0625
# A batch: inputs, targets, and sample weights or `None`.
Batch = tuple


@dataclasses.dataclass(frozen=True)
class Condition:
    """One column of the table.

    The functions by hand know nothing of the library. Every weight has one more axis in
    front, along which examples are counted, so that each example can have weights of
    its own.

    Args:
        what: The condition in a few words.
        build: Function of a space with hyperparameters "a" and "b" that returns inputs
            and outputs of the model.
        outputs: Function of a list of weights, the inputs, moving statistics (or other
            constants of the model) and `training` that returns a list of outputs.
        losses: Function of the list of outputs and the batch that returns `[n]`
            numbers, whose mean is the loss.
        penalty: Function of a list of weights and the values of "a" and "b", `[n]`
            each, that returns `[n]` numbers.
        batch: Function of a seed that returns a batch.
        compiled: Arguments of `compile`. Defaults to `None`: mean squared error.
        policy: Keras's dtype policy.
        rtol: Largest relative error of a vector.
        ragged: Whether `fit` runs on data whose last batch is smaller.
    """

    what: str
    build: Callable[[Any], tuple]
    outputs: Callable[..., list]
    losses: Callable[[list, Batch], tf.Tensor]
    penalty: Callable[..., tf.Tensor]
    batch: Callable[[int], Batch]
    compiled: dict | None = None
    policy: str = "float64"
    rtol: float = 1e-9
    ragged: bool = False

    def model(self, method: bt.methods.Method) -> bt.BilevelModel:
        """The model of the library, compiled, with random weights."""
        keras.config.set_dtype_policy(self.policy)
        if self.policy == "float64":
            keras.backend.set_floatx("float64")
        hp = bt.HyperparameterSpace(a=bt.Positive(0.4), b=bt.Positive(0.7))
        model = bt.BilevelModel(*self.build(hp), hyperparameters=hp)
        generator = np.random.default_rng(5)
        for weight in [*model.trainable_variables, *model.non_trainable_variables]:
            if "kernel" in weight.path or "bias" in weight.path or "emb" in weight.path:
                weight.assign(0.7 * generator.normal(size=weight.shape))
        arguments = {"loss": "mse", **(self.compiled or {})}
        optimizer = keras.optimizers.SGD(0.0625, momentum=0.875)
        response = keras.optimizers.SGD(0.125)
        if self.policy == "mixed_float16":
            # Scales of their own, low enough that no step is skipped.
            scaled = keras.optimizers.LossScaleOptimizer
            optimizer, response = scaled(optimizer, 128.0), scaled(response, 64.0)
        model.compile(
            optimizer,
            method=method,
            hyper_optimizer=keras.optimizers.SGD(HYPER_RATE),
            response_optimizer=response,
            run_eagerly=True,
            **arguments,
        )
        for variable in model.network.response_variables:
            variable.assign(0.4 * generator.normal(size=variable.shape))
        return model


def dense(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """x · kernel + bias, at every example's own weights."""
    y = tf.einsum("n...i,nio->n...o", x, kernel)
    if bias is None:
        return y
    return y + tf.reshape(bias, [tf.shape(bias)[0], *[1] * (y.ndim - 2), -1])


def squares(weight: tf.Tensor) -> tf.Tensor:
    """The sum of squares of every example's weight, `[n]`."""
    return tf.reduce_sum(weight**2, list(range(1, weight.shape.rank)))


def squared_error(y: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The mean over all axes but the first, `[n]`."""
    return tf.reduce_mean((y - target) ** 2, list(range(1, y.shape.rank)))
