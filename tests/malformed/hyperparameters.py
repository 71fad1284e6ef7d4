"""Malformed spaces, and hyperparameters where none can be used."""

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from tests.malformed.row import Row

REFERENCE = ("reference and not a number", "value_of", "space.values()")


def make():
    return bt.HyperparameterSpace(
        p=bt.Uniform(0.0, 0.9, initial=0.1),
        wd=bt.LogUniform(1e-6, 1.0, initial=1e-3),
        v=bt.Positive([1.0, 2.0]),
    )


def keras_model():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, name="hidden"),
            keras.layers.Dropout(0.1, name="drop"),
        ]
    )


def tuned(**tune):
    return bt.BilevelModel.from_keras(keras_model(), make(), tune=tune)


def as_tensor(hp):
    return tf.constant(2.0) * hp


USES = {
    "times a number": lambda hp: hp * 0.5,
    "a number divided by it": lambda hp: 1.0 / hp,
    "minus": lambda hp: -hp,
    "float": float,
    "int": int,
    "truth value": bool,
    "comparison": lambda hp: hp > 0.5,
    "formatting": lambda hp: f"{hp:.2f}",
    "NumPy": np.sqrt,
    "TensorFlow": tf.exp,
    "a tensor times it": as_tensor,
    "Keras": keras.ops.exp,
    "a symbolic tensor times it": lambda hp: keras.Input((3,)) * hp,
    "an entry": lambda hp: hp[0],
    "iteration": list,
    "Keras's Dropout": keras.layers.Dropout,
    "Keras's L2": keras.regularizers.L2,
    "Keras's LeakyReLU": keras.layers.LeakyReLU,
    "Keras's SGD": keras.optimizers.SGD,
    "a kernel size": lambda hp: bt.HyperConv2D(3, kernel_size=hp),
    "units": bt.HyperDense,
    "a regularizer of Keras's Dense": lambda hp: keras.layers.Dense(
        3, kernel_regularizer=hp
    ),
}


def row_of_use(what, use):
    kind = ValueError if what in _SHOWN_BY_KERAS else TypeError
    return Row(
        f"a hyperparameter in {what}",
        lambda: use(make()["p"]),
        kind,
        ("'p'", *REFERENCE),
    )


# Keras raises these, and shows what it was given.
_SHOWN_BY_KERAS = {
    "Keras's L2",
    "Keras's SGD",
    "a kernel size",
    "units",
    "a regularizer of Keras's Dense",
}

ROWS = [
    *(row_of_use(what, use) for what, use in USES.items()),
    Row(
        "a space from a list of scales",
        lambda: bt.HyperparameterSpace([bt.Positive(1.0)]),
        TypeError,
        ("dict", "each hyperparameter needs a name", "Positive(initial=1.0)"),
    ),
    Row(
        "a space from one scale",
        lambda: bt.HyperparameterSpace(bt.Positive(1.0)),
        TypeError,
        ("dict", "each hyperparameter needs a name", "Positive(initial=1.0)"),
    ),
    Row(
        "a space from a number",
        lambda: bt.HyperparameterSpace(0.5),
        TypeError,
        ("dict", "names to scales", "Received: 0.5"),
    ),
    Row(
        "a number in place of a scale",
        lambda: bt.HyperparameterSpace(rate=0.5),
        TypeError,
        ("'rate'", "must be a scale", "Received: 0.5"),
    ),
    Row(
        "a scale under the name of an argument",
        lambda: bt.HyperparameterSpace(seed=bt.Positive(1.0)),
        TypeError,
        ("`seed`", "HyperparameterSpace({'seed': …})"),
    ),
    Row(
        "an empty name",
        lambda: bt.HyperparameterSpace({"": bt.Positive(1.0)}),
        TypeError,
        ("name", "non-empty string", "''"),
    ),
    Row(
        "two names that are one in the logs",
        lambda: bt.HyperparameterSpace(
            x=bt.Positive([1.0, 2.0]), x_mean=bt.Positive(1)
        ),
        ValueError,
        ("'x' and 'x_mean'", "logs", "Rename"),
    ),
    Row(
        "a space of integers",
        lambda: bt.HyperparameterSpace(a=bt.Positive(1.0), dtype="int32"),
        ValueError,
        ("`dtype`", "floating-point", "int32"),
    ),
    Row(
        "a hyperparameter read as an attribute",
        lambda: make().wd,
        AttributeError,
        ("space['wd']", "space.values()['wd']"),
    ),
    Row(
        "a hyperparameter set as an attribute",
        lambda: setattr(make(), "wd", 0.1),
        AttributeError,
        ("'wd'", "space.assign({'wd': …})"),
    ),
    Row(
        "a hyperparameter set by its name",
        lambda: make().__setitem__("wd", 0.1),
        TypeError,
        ("space.assign({'wd': …})", "0.1"),
    ),
    Row(
        "a name with a slip",
        lambda: make()["vd"],
        ValueError,
        ("'vd'", "Did you mean", "p, wd, v"),
    ),
    Row(
        "assign without names",
        lambda: make().assign(0.5),
        TypeError,
        ("`values`", "dict", "0.5"),
    ),
    Row(
        "assign of a string",
        lambda: make().assign({"p": "0.3"}),
        ValueError,
        ("`p`", "number", "'0.3'"),
    ),
    Row(
        "assign of another shape",
        lambda: make().assign({"v": np.ones(10**5)}),
        ValueError,
        ("`v`", "shape (2,)", "(100000,)"),
    ),
    Row(
        "assign of a number that overflows",
        lambda: make().assign({"v": [1.0, 1e39]}),
        ValueError,
        ("`v`", "float32", "1e+39"),
    ),
    Row(
        "a hyperparameter as a regularizer",
        lambda: bt.HyperDense(3, kernel_regularizer=make()["wd"]),
        ValueError,
        ("`kernel_regularizer` of HyperDense", "bilevel_tf.L2(hp['wd'])", "Received"),
    ),
    Row(
        "a number as a regularizer",
        lambda: bt.HyperDense(3, bias_regularizer=0.1),
        ValueError,
        ("`bias_regularizer` of HyperDense", "bilevel_tf.L2(0.01)", "0.1"),
    ),
    Row(
        "a value in place of a hyperparameter",
        lambda: bt.L2(make()["wd"].value()),
        ValueError,
        ("`l2` of L2", "Give the hyperparameter itself"),
    ),
    Row(
        "a string as a rate",
        lambda: bt.HyperDropout("0.3"),
        ValueError,
        ("`rate` of HyperDropout", "at most 1", "'0.3'"),
    ),
    Row(
        "a scale as a rate",
        lambda: bt.HyperDropout(bt.Uniform(0.0, 0.9, initial=0.1)),
        ValueError,
        ("`rate` of HyperDropout", "HyperparameterSpace", "space['name']"),
    ),
    Row(
        "a vector as the learning rate of an optimizer",
        lambda: bt.TunedOptimizer("sgd", learning_rate=make()["v"]),
        ValueError,
        ("`learning_rate`", "scalar", "'v' of shape (2,)"),
    ),
    Row(
        "the value of a scale",
        lambda: bt.hyperparameters.value_of(bt.Positive(1.0)),
        TypeError,
        ("space['name']", "Positive(initial=1.0)"),
    ),
    Row(
        "a string for a rate in tune",
        lambda: tuned(drop={"rate": "0.3"}),
        ValueError,
        ("`tune` gives HyperDropout 'drop'", "`rate`", "'0.3'"),
    ),
    Row(
        "a hyperparameter for units in tune",
        lambda: tuned(hidden={"units": make()["p"]}),
        ValueError,
        ("`tune` gives HyperDense 'hidden'", "`units`", *REFERENCE),
    ),
    Row(
        "a hyperparameter for a regularizer in tune",
        lambda: tuned(hidden={"kernel_regularizer": make()["wd"]}),
        ValueError,
        ("`kernel_regularizer` of Dense 'hidden'", "bilevel_tf.L2(hp['wd'])"),
    ),
]
