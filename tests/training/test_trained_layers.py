"""Freezing or unfreezing layers needs a new `compile`."""

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from tests.training.models import data, everything

METHODS = {
    "DeltaSTN": bt.DeltaSTN(train_steps=2),
    "Neumann": bt.Neumann(2, train_steps=2),
    "Unrolled": bt.Unrolled(2, train_steps=2),
    "ForwardMode": bt.methods.ForwardMode(train_steps=2),
}
X, Y = data(16)[0], np.ones((16, 1), "float32")


def build(method, frozen=False):
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((6,))
    penalty = bt.L2(hp["l2"])
    x = bt.HyperDense(4, name="first", trainable=not frozen)(inputs)
    block = keras.Sequential([keras.Input((4,)), bt.HyperDense(4, name="inner")])
    x = bt.HyperDense(1, kernel_regularizer=penalty, name="last")(block(x))
    model = bt.BilevelModel(inputs, x, hyperparameters=hp)
    model.compile("sgd", "mse", method=METHODS[method])
    return model


def fit(model, **arguments):
    given = {"batch_size": 4, "verbose": 0, "validation_data": (X, Y), **arguments}
    return model.fit(X, Y, **given)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_change_is_refused_until_the_next_compile(method, frozen):
    model = build(method, frozen)
    fit(model)
    model.get_layer("first").trainable = frozen
    before = everything(model)
    state = "trained" if frozen else "frozen"
    for train in (fit, lambda model: model.train_on_batch(X, Y)):
        with pytest.raises(ValueError, match=rf"`compile` again.*'first' {state} now"):
            train(model)
    after = everything(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    model.compile("sgd", "mse", method=METHODS[method])
    kernel = np.array(model.get_layer("first").kernel)
    fit(model)
    assert np.array_equal(kernel, model.get_layer("first").kernel) is not frozen
    if method == "DeltaSTN":
        assert (model.get_layer("first") in model.network.responding_layers) is frozen


def test_a_change_that_is_taken_back():
    model = build("DeltaSTN")
    model.get_layer("first").trainable = False
    model.get_layer("first").trainable = True
    fit(model)


def test_a_layer_of_a_nested_model():
    model = build("DeltaSTN")
    model.layers[2].trainable = False
    with pytest.raises(ValueError, match=r"inner' frozen now"):
        fit(model)


def test_several_layers():
    model = build("DeltaSTN", frozen=True)
    model.get_layer("first").trainable = True
    model.get_layer("last").trainable = False
    with pytest.raises(ValueError, match=r"'last' frozen now; 'first' trained now"):
        fit(model)


def test_a_callback_that_unfreezes():
    """In the midst of a fit, nothing but the next epoch can be refused."""
    model = build("DeltaSTN", frozen=True)

    def unfreeze(epoch, logs):
        model.get_layer("first").trainable = True

    callback = keras.callbacks.LambdaCallback(on_epoch_end=unfreeze)
    with pytest.raises(ValueError, match="`compile` again"):
        fit(model, epochs=3, callbacks=[callback])
    assert model.progress.epochs == 1
