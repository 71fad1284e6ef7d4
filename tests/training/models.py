"""Small models and data that the tests of training share."""

import keras
import numpy as np

import bilevel_tf as bt

METHODS = {
    "DeltaSTN": bt.DeltaSTN,
    "CenteredSTN": bt.methods.CenteredSTN,
    "STN": bt.STN,
    "Hypernetwork": bt.methods.Hypernetwork,
}
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data(count=44, features=6, classes=3, seed=0):
    """Features and integer labels."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, features)).astype("float32")
    y = generator.integers(classes, size=count)
    return x, y


def space(**more):
    """A dropout rate and a weight decay."""
    return bt.HyperparameterSpace(
        rate=bt.Uniform(0.0, 0.9, initial=0.3),
        l2=bt.LogUniform(1e-5, 1.0, initial=1e-2),
        seed=3,
        **more,
    )


def network(hp, features=6, classes=3):
    """Inputs and outputs of a classifier with tuned dropout and weight decay."""
    inputs = keras.Input((features,))
    x = bt.HyperDropout(hp["rate"], seed=7)(inputs)
    x = bt.HyperDense(8, activation="tanh", kernel_regularizer=bt.L2(hp["l2"]))(x)
    x = keras.layers.Dropout(0.2, seed=8)(x)
    return inputs, bt.HyperDense(classes)(x)


def classifier(method=None, *, hp=None, **arguments):
    """A compiled model on `network`."""
    hp = hp or space()
    model = bt.BilevelModel(*network(hp), hyperparameters=hp)
    return compiled(model, method, **arguments)


def compiled(model, method=None, **arguments):
    """The model after `compile`, with defaults that differ in each optimizer."""
    defaults = {
        "optimizer": keras.optimizers.SGD(0.05, momentum=0.9),
        "response_optimizer": keras.optimizers.SGD(0.02, momentum=0.5),
        "hyper_optimizer": keras.optimizers.Adam(0.02),
        "loss": CROSSENTROPY,
    }
    method = method or bt.DeltaSTN(train_steps=2)
    model.compile(method=method, **{**defaults, **arguments})
    return model


def everything(model):
    """All that training changes, by path: variables and optimizer slots."""
    slots = {
        f"{name}/{v.path}": v
        for name in ("optimizer", "response_optimizer", "hyper_optimizer")
        for v in getattr(model, name).variables
    }
    named = {f"{i}/{v.name}": v for i, v in enumerate(model.variables)}
    return {name: np.array(v.value) for name, v in {**named, **slots}.items()}


def assert_same_state(one, other, rtol=0.0):
    """Equal, by default bit for bit; paths may differ, as names of layers do."""
    one, other = everything(one), everything(other)
    assert len(one) == len(other) > 0
    for (name, a), b in zip(one.items(), other.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=0.0, err_msg=name)
