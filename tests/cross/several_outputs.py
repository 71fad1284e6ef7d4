"""Conditions with several outputs."""

import keras
import tensorflow as tf

import bilevel_tf as bt
from tests.cross.condition import Condition, dense, squared_error
from tests.cross.single_output import PLAIN, normal


def build_parts(hp, other):
    """A hidden layer with two heads; the second one has `other` outputs."""
    inputs = keras.Input((2,))
    regularizer = bt.L2(hp["a"])
    hidden = bt.HyperDense(2, "tanh", kernel_regularizer=regularizer)(inputs)
    one = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["b"]), name="one")(hidden)
    return inputs, one, bt.HyperDense(other, name="two")(hidden)


def build_list(hp):
    inputs, one, two = build_parts(hp, 2)
    return inputs, [one, two]


def build_dict(hp):
    inputs, one, two = build_parts(hp, 2)
    return inputs, {"second": two, "first": one}


def outputs(w, x, constants, training):
    kernel, bias, *heads = w
    hidden = tf.tanh(dense(x, kernel, bias))
    return [dense(hidden, *heads[:2]), dense(hidden, *heads[2:])]


def list_batch(seed):
    targets = normal(seed + 100, 4, 1), normal(seed + 200, 4, 2)
    return normal(seed, 4, 2), targets, None


def dict_batch(seed):
    x, (one, two), _ = list_batch(seed)
    return x, {"first": one, "second": two}, None


def list_losses(outputs, batch):
    one, two = batch[1]
    second = tf.reduce_mean(tf.math.log(tf.cosh(outputs[1] - two)), 1)
    return squared_error(outputs[0], one) + 0.5 * second


def dict_losses(outputs, batch):
    targets = batch[1]["first"], batch[1]["second"]
    return list_losses(outputs, (batch[0], targets, None))


def lossless_losses(outputs, batch):
    return squared_error(outputs[0], batch[1][0])


CONDITIONS = [
    Condition(
        "list outputs",
        build_list,
        outputs,
        list_losses,
        PLAIN["penalty"],
        list_batch,
        {"loss": ["mse", "log_cosh"], "loss_weights": [1.0, 0.5]},
    ),
    Condition(
        "dict outputs",
        build_dict,
        outputs,
        dict_losses,
        PLAIN["penalty"],
        dict_batch,
        {
            "loss": {"first": "mse", "second": "log_cosh"},
            "loss_weights": {"first": 1.0, "second": 0.5},
        },
    ),
    Condition(
        "head without loss",
        build_list,
        outputs,
        lossless_losses,
        PLAIN["penalty"],
        list_batch,
        {"loss": ["mse", None]},
    ),
]
