"""Tiny problems for searches, with functions that other processes can import."""

import functools

import keras
import numpy as np

import bilevel_tf as bt


@functools.cache
def data():
    """Training, validation and test data of a linear problem with noise."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(6, 1))

    def draw(count):
        x = rng.normal(size=(count, 6))
        y = x @ w + rng.normal(size=(count, 1))
        return x.astype("float32"), y.astype("float32")

    return draw(24), draw(40), draw(40)


def ridge(rate=0.05, **compile_arguments):
    """A linear model with weight decay; `rate` is the learning rate."""
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-4, 1e2, initial=1e-2))
    inputs = keras.Input((6,))
    layer = bt.HyperDense(
        1, use_bias=False, kernel_regularizer=bt.L2(hp["l2"]), name="linear"
    )
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    optimizer = keras.optimizers.SGD(rate)
    model.compile(optimizer, loss="mse", method=bt.methods.T1T2(), **compile_arguments)
    return model


def diverging():
    """One that diverges where weight decay is strong: |1 − 2 α l2| > 1."""
    return ridge(rate=0.1)


def network():
    """A network with dropout, weight decay and momentum."""
    hp = bt.HyperparameterSpace(
        rate=bt.Uniform(0.0, 0.9, initial=0.2),
        l2=bt.LogUniform(1e-6, 1e-1, initial=1e-3),
    )
    inputs = keras.Input((6,))
    x = bt.HyperDense(8, "tanh", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    x = bt.HyperDropout(hp["rate"])(x)
    model = bt.BilevelModel(inputs, bt.HyperDense(1)(x), hyperparameters=hp)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss="mse")
    return model


def run(search, build=ridge, **arguments):
    """Run a search quietly."""
    (x, y), validation, test = data()
    defaults = {"validation_data": validation, "batch_size": 8, "verbose": 0}
    return search.run(build, x, y, **{**defaults, **arguments})


def outcome(result):
    """All that must be the same in two runs of a search: not the seconds."""
    return [
        (t.number, t.values, t.score, t.status, t.epochs, t.steps, t.validation)
        for t in result.trials
    ]
