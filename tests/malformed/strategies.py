"""Models and optimizers that were not made under one strategy, or under a wrong one."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from tests.malformed.row import Row


def one_device():
    return tf.distribute.OneDeviceStrategy("cpu:0")


def mirrored():
    return tf.distribute.MirroredStrategy(["cpu:0"])


def space():
    return bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))


def build(hp):
    inputs = keras.Input((3,))
    outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    return bt.BilevelModel(inputs, outputs, hyperparameters=hp)


def build_under(strategy):
    with strategy.scope():
        return build(space())


def make_model_apart_from_space():
    hp = space()
    with mirrored().scope():
        build(hp).compile("sgd", "mse")


def make_space_apart_from_model():
    with mirrored().scope():
        hp = space()
    build(hp).compile("sgd", "mse")


def make_a_layer_apart():
    layer = keras.layers.Dense(2, name="early")
    layer.build((None, 3))
    with mirrored().scope():
        hp, inputs = space(), keras.Input((3,))
        outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(layer(inputs))
        bt.BilevelModel(inputs, outputs, hyperparameters=hp).compile("sgd", "mse")


def call_under(strategy, model, method):
    """Call `compile` or `fit` in the scope of a strategy that is not the model's."""
    x = np.ones((4, 3)), np.ones((4, 1))
    if method == "fit":
        model.compile("sgd", "mse")
    with strategy.scope():
        if method == "fit":
            model.fit(*x, validation_data=x, verbose=0)
        else:
            model.compile("sgd", "mse")


def compile_with(name, optimizer, method=None):
    """Compile with an optimizer that was made outside of the scope."""
    model = build_under(mirrored())
    with model.distribute_strategy.scope():
        model.compile(**{"optimizer": "sgd", name: optimizer}, method=method)


def compile_under_distribution():
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=["cpu:0"])
    )
    try:
        build(space()).compile("sgd", "mse")
    finally:
        keras.distribution.set_distribution(None)


def compile_with_objective():
    with one_device().scope():
        build(space()).compile(
            "sgd", "mse", method=bt.methods.T1T2(), objective=bt.CrossValidation(2)
        )


@contextlib.contextmanager
def central_storage():
    devices = {"compute_devices": ["cpu:0"], "parameter_device": "cpu:0"}
    strategy = tf.distribute.experimental.CentralStorageStrategy(**devices)
    with strategy.scope():
        yield


def compile_under_central_storage():
    with central_storage():
        build(space()).compile("sgd", "mse")


ROWS = [
    Row(
        "a space made outside of the model's strategy",
        make_model_apart_from_space,
        ValueError,
        ("HyperparameterSpace", "strategy.scope()", "unconstrained"),
    ),
    Row(
        "a model made outside of its space's strategy",
        make_space_apart_from_model,
        ValueError,
        ("under no strategy", "strategy.scope()", "unconstrained"),
    ),
    Row(
        "a layer built outside of the model's strategy",
        make_a_layer_apart,
        ValueError,
        ("MirroredStrategy", "strategy.scope()", "early/kernel"),
    ),
    Row(
        "a model made outside of every strategy and compiled under one",
        lambda: call_under(one_device(), build(space()), "compile"),
        ValueError,
        ("`compile`", "outside of any strategy", "OneDeviceStrategy"),
    ),
    Row(
        "a model made outside of every strategy and fitted under one",
        lambda: call_under(mirrored(), build(space()), "fit"),
        ValueError,
        ("`fit`", "outside of any strategy", "MirroredStrategy"),
    ),
    Row(
        "a model made under one strategy and compiled under another",
        lambda: call_under(mirrored(), build_under(mirrored()), "compile"),
        ValueError,
        ("`compile`", "under another strategy", "MirroredStrategy"),
    ),
    Row(
        "a model made under one strategy and fitted under another",
        lambda: call_under(one_device(), build_under(mirrored()), "fit"),
        ValueError,
        ("`fit`", "under another strategy", "OneDeviceStrategy"),
    ),
    *(
        Row(
            f"{name} made outside of the strategy",
            lambda name=name: compile_with(name, keras.optimizers.Adam(0.1)),
            ValueError,
            (f"`{name}`", "strategy.scope()", "Adam", "MirroredStrategy"),
        )
        for name in ("optimizer", "response_optimizer", "hyper_optimizer")
    ),
    Row(
        "a TunedOptimizer made outside of the strategy",
        lambda: compile_with(
            "optimizer",
            bt.TunedOptimizer("sgd", learning_rate=lambda h: h["l2"]),
            bt.methods.Greedy(),
        ),
        ValueError,
        ("`optimizer`", "strategy.scope()", "SGD", "MirroredStrategy"),
    ),
    Row(
        "a strategy that is not supported",
        compile_under_central_storage,
        ValueError,
        ("MirroredStrategy", "OneDeviceStrategy", "CentralStorageStrategy"),
    ),
    Row(
        "a distribution of Keras",
        compile_under_distribution,
        ValueError,
        ("keras.distribution", "MirroredStrategy", "DataParallel"),
    ),
    Row(
        "CrossValidation under a strategy",
        compile_with_objective,
        ValueError,
        ("CrossValidation", "replica", "OneDeviceStrategy"),
    ),
]
