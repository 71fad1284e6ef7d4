"""Small classifiers and data that the tests of cross-validation share."""

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt

OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.02),
    "AdamW": lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1, clipvalue=0.1),
}


def crossentropy():
    """Made at every call: a loss computes in the float type of its making."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data(count=30, seed=0):
    """Four features and labels of three classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4))
    return x, rng.integers(3, size=count)


def network(regularizer):
    """Inputs and outputs of a network of two layers."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, "tanh", kernel_regularizer=regularizer)(inputs)
    return inputs, keras.layers.Dense(3)(x)


def dense(before=(), **arguments):
    """What `network` is, of one layer after others."""

    def make(regularizer):
        inputs = x = keras.Input((4,))
        for layer in before:
            x = layer(x)
        layer = keras.layers.Dense(3, kernel_regularizer=regularizer, **arguments)
        return inputs, layer(x)

    return make


def space(**more):
    return bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=0.03), **more)


def classifier(make=network, hp=None, **arguments):
    """A compiled model that is judged by three folds."""
    hp = hp or space()
    model = bt.BilevelModel(*make(bt.L2(hp["l2"])), hyperparameters=hp)
    defaults = {
        "optimizer": OPTIMIZERS["SGD"](),
        "hyper_optimizer": keras.optimizers.SGD(0.1),
        "method": bt.methods.T1T2(train_steps=1),
        "objective": bt.CrossValidation(3),
        "loss": crossentropy(),
        # Compiling takes longer than all that is computed.
        "jit_compile": False,
    }
    model.compile(**{**defaults, **arguments})
    return model


def fit(model, x, y, **arguments):
    """The history of a fit in order, in batches of ten."""
    arguments = {"batch_size": 10, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(x, y, **arguments).history


def copies(model, q):
    """Weights of the copy that is not trained on fold q."""
    return [np.array(v[q]) for v in model.objective.variables(model.network)]


def problem(model, x, y, weight=None, steps=1):
    """The model's problem with all data as every batch."""
    batch = model.objective.prepare(model.network, x, y, weight)
    stacked = keras.tree.map_structure(
        lambda a: None if a is None else tf.stack([a] * steps), batch
    )
    return model.network.problem(stacked, batch)


def state(model):
    """All that training changes."""
    optimizers = (
        model.optimizer,
        model.hyper_optimizer,
        model.network.objective_optimizer,
    )
    slots = [v for optimizer in optimizers for v in optimizer.variables]
    return [np.array(v) for v in [*model.variables, *slots]]


def assert_same(one, other, **tolerance):
    """Equal lists of arrays, by default bit for bit."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0.0, **tolerance})
