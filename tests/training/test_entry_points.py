"""What a model does beside `fit`: single batches, and loops of one's own."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.training.models import (
    CROSSENTROPY,
    METHODS,
    assert_same_state,
    classifier,
    data,
)

X, Y = data(16)
VALID = data(16, seed=1)
ALONE = "trains the weights alone"


def train_on_batch(model, *arguments, **named):
    with pytest.warns(UserWarning, match=ALONE):
        return model.train_on_batch(*arguments, **named)


def penalized(method, **arguments):
    """A model without dropout, which the methods that differentiate refuse."""
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((6,))
    layer = bt.HyperDense(3, kernel_regularizer=bt.L2(hp["l2"]))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    given = {"optimizer": "sgd", "loss": CROSSENTROPY, "method": method, **arguments}
    model.compile(**given)
    return model


# train_on_batch


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_train_on_batch_is_a_step_of_warm_up(name, eager):
    models = []
    for whole in (True, False):
        keras.utils.set_random_seed(0)
        method = METHODS[name](train_steps=2, warmup_epochs=9)
        model = classifier(method, run_eagerly=eager)
        models.append(model)
        if whole:
            given = {"batch_size": 8, "shuffle": False, "verbose": 0}
            model.fit(X, Y, validation_data=VALID, **given)
            continue
        for part in (slice(8), slice(8, 16)):
            loss = train_on_batch(model, X[part], Y[part])
            assert np.isfinite(loss)
            assert np.ndim(loss) == 0
    assert_same_state(*models)
    assert models[1].progress.inner_steps == 2


@pytest.mark.parametrize(
    "method",
    [
        bt.Neumann(2, train_steps=1),
        bt.Unrolled(2, train_steps=1),
        bt.methods.Greedy(train_steps=1),
        bt.methods.ForwardMode(train_steps=1),
    ],
    ids=lambda method: type(method).__name__,
)
def test_train_on_batch_before_and_after_fit(method):
    model = penalized(method, metrics=["accuracy"], steps_per_execution=2)
    before = model.hyperparameters.values()
    weights = model.get_weights()
    loss, accuracy = train_on_batch(model, X, Y)
    assert 0.0 <= accuracy <= 1.0
    assert loss > 0.0
    assert not np.array_equal(weights[0], model.get_weights()[0])
    assert model.hyperparameters.values() == before
    model.fit(X, Y, 8, validation_data=VALID, verbose=0)
    tuned, taken = model.hyperparameters.values(), model.progress.outer_steps
    assert tuned != before
    assert taken == 2
    logs = train_on_batch(model, X, Y, return_dict=True)
    assert sorted(logs) == ["accuracy", "loss"]
    assert model.hyperparameters.values() == tuned
    assert model.progress.outer_steps == taken
    model.fit(X, Y, 8, validation_data=VALID, verbose=0)
    assert model.hyperparameters.values() != tuned


def test_train_on_batch_sees_weights():
    losses = []
    for arguments in ({"sample_weight": np.where(Y == 1, 3.0, 1.0)}, {}):
        keras.utils.set_random_seed(0)
        model = penalized(bt.Neumann(2))
        class_weight = None if arguments else {0: 1.0, 1: 3.0, 2: 1.0}
        losses.append(
            train_on_batch(model, X, Y, class_weight=class_weight, **arguments)
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_integer_weights_after_a_fit_that_tuned_weights():
    """That fit took integers for the numbers of examples."""
    hp = bt.HyperparameterSpace(weights=bt.Positive(np.ones(16)))
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(3)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile("sgd", loss=CROSSENTROPY, method=bt.methods.T1T2(train_steps=2))
    given = {"validation_data": VALID, "verbose": 0}
    model.fit(X, Y, 8, sample_weight=hp["weights"], **given)
    assert train_on_batch(model, X, Y, np.zeros(16, "int32")) == 0.0


# Batches that are not trained on


def test_single_batches_before_fit():
    model = classifier(metrics=["accuracy"])
    one, whole = model.test_on_batch(X, Y), model.evaluate(X, Y, 16, verbose=0)
    np.testing.assert_allclose(one, whole, rtol=1e-6)
    np.testing.assert_allclose(
        model.predict_on_batch(X), model.predict(X, verbose=0), rtol=1e-6
    )
    plain = model.to_keras()
    plain.compile(loss=CROSSENTROPY, metrics=["accuracy"])
    expected = plain.evaluate(X, Y, 16, verbose=0)
    expected[0] -= float(sum(plain.losses))
    np.testing.assert_allclose(one, expected, rtol=1e-5)
    assert model.progress.inner_steps == 0


# A loop of one's own


@pytest.mark.parametrize("compiled", [True, False])
def test_a_loop_of_steps_is_fit(compiled):
    """The validation examples are all alike, so that their order does not matter."""
    x, y = np.repeat(VALID[0][:1], 8, axis=0), np.repeat(VALID[1][:1], 8)
    models = []
    for whole in (True, False):
        keras.utils.set_random_seed(0)
        model = classifier(bt.DeltaSTN(train_steps=2))
        models.append(model)
        if whole:
            given = {"batch_size": 8, "shuffle": False, "verbose": 0}
            model.fit(X, Y, epochs=2, validation_data=(x, y), **given)
            continue
        inner, outer = model.train_step, model.outer_train_step
        if compiled:
            inner, outer = tf.function(inner), tf.function(outer)
        for _ in range(2):
            for part in (slice(8), slice(8, 16)):
                inner((tf.constant(X[part]), tf.constant(Y[part])))
            outer(((tf.constant(x), tf.constant(y)),))
    assert_same_state(*models, rtol=2e-4)
    assert models[0].hyperparameters.values() != classifier().hyperparameters.values()


def test_a_loop_of_steps_with_training_batches():
    model = penalized(bt.Neumann(2))
    before = model.hyperparameters.values()
    batch = (tf.constant(X), tf.constant(Y))
    stacked = tuple(part[None] for part in batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.train_step(batch)
        logs = tf.function(model.outer_train_step)((batch, stacked))
    assert float(logs["l2"]) == pytest.approx(model.hyperparameters.values()["l2"])
    assert model.hyperparameters.values() != before
