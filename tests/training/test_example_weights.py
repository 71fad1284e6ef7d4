"""A hyperparameter as `sample_weight`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.methods.problems import central_differences

COUNT = 12


def make_model(scale=None, method=None, dtype="float32", **arguments):
    keras.utils.set_random_seed(0)
    scale = scale or bt.Uniform(0.0, 1.0, initial=np.full(COUNT, 0.5))
    hp = bt.HyperparameterSpace(weights=scale, dtype=dtype)
    inputs = keras.Input((3,), dtype=dtype)
    outputs = keras.layers.Dense(1, dtype=dtype)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(
        keras.optimizers.SGD(0.1),
        hyper_optimizer=keras.optimizers.Adam(0.1),
        method=method or bt.methods.T1T2(train_steps=1),
        loss="mse",
        **arguments,
    )
    return model, hp


def data(seed=0, count=COUNT):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    return x, x.sum(1, keepdims=True)


def test_weights_of_spoilt_examples_fall():
    model, hp = make_model()
    x, y = data()
    y[:4] += 5.0
    model.fit(
        x,
        y,
        sample_weight=hp["weights"],
        validation_data=data(1, 64),
        batch_size=4,
        epochs=40,
        verbose=0,
    )
    weights = hp.values()["weights"]
    assert weights[:4].max() < 0.2 < 0.4 < weights[4:].min()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_inner_step_is_that_of_the_weighted_loss(jit_compile):
    weights = np.linspace(0.1, 0.9, COUNT)
    model, hp = make_model(
        bt.Uniform(0.0, 1.0, initial=weights),
        bt.methods.T1T2(warmup_epochs=9),
        jit_compile=jit_compile,
    )
    plain = model.to_keras()
    plain.compile(keras.optimizers.SGD(0.1), loss="mse")
    x, y = data()
    given = {"batch_size": 5, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(x, y, sample_weight=hp["weights"], validation_data=(x, y), **given)
    history = plain.fit(x, y, sample_weight=weights, **given)
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert history.history["loss"][-1] > 0


def test_hypergradient_is_that_of_weighted_least_squares():
    model, hp = make_model(dtype="float64", method=bt.methods.ExactImplicit())
    (x, y), (v, t) = data(), data(1, 7)
    y = y + np.random.default_rng(2).normal(size=y.shape)
    model.fit(
        x, y, sample_weight=hp["weights"], validation_data=(v, t), epochs=0, verbose=0
    )
    ones = np.ones((COUNT, 1))

    def best_weights(raw):
        weights = 1 / (1 + np.exp(-raw))[:, None]
        design = np.concatenate([x, ones], 1)
        return np.linalg.solve(design.T @ (weights * design), design.T @ (weights * y))

    def outer(raw):
        found = best_weights(raw)
        return np.mean((v @ found[:3] + found[3] - t) ** 2)

    raw = np.random.default_rng(3).normal(size=COUNT)
    hp.unconstrained.assign(raw)
    found = best_weights(raw)
    model.set_weights([found[:3], found[3], *model.get_weights()[2:]])
    training = [tf.constant(a[None]) for a in (x, y, np.arange(COUNT, dtype="int32"))]
    problem = model.network.problem(training, (tf.constant(v), tf.constant(t), None))
    slope = model.method.hypergradient(problem).gradients[0]
    expected = central_differences(outer, raw)
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-9)


def test_per_example_gradients_see_the_weights():
    model, hp = make_model(method=bt.methods.EmpiricalFisher(train_steps=1))
    before = hp.values()["weights"]
    model.fit(*data(), sample_weight=hp["weights"], validation_data=data(1), verbose=0)
    assert np.any(hp.values()["weights"] != before)


def test_whole_numbers_stay_weights_in_evaluation():
    model, hp = make_model()
    x, y = data()
    model.fit(x, y, sample_weight=hp["weights"], validation_data=(x, y), verbose=0)
    doubled = model.evaluate(x, y, sample_weight=np.full(COUNT, 2), verbose=0)
    np.testing.assert_allclose(doubled, 2 * model.evaluate(x, y, verbose=0), rtol=1e-5)


@pytest.mark.usefixtures("spare_hyperparameters")
def test_the_next_fit_may_have_ordinary_weights():
    model, hp = make_model(method=bt.methods.T1T2(warmup_epochs=9))
    x, y = data()
    given = {"validation_data": (x, y), "verbose": 0}
    model.fit(x, y, sample_weight=hp["weights"], **given)
    kept = model.get_weights()
    model.fit(x, y, sample_weight=np.zeros(COUNT, "int32"), **given)
    np.testing.assert_array_equal(model.get_weights()[0], kept[0])


def test_validation_split_takes_its_examples_away():
    model, hp = make_model(bt.Uniform(0.0, 1.0, initial=np.full(9, 0.5)))
    model.fit(*data(), sample_weight=hp["weights"], validation_split=0.25, verbose=0)


def fit(x, y, model_arguments=None, **arguments):
    model, hp = make_model(**(model_arguments or {}))
    model.fit(
        x,
        y,
        sample_weight=hp["weights"],
        validation_data=data(1),
        verbose=0,
        **arguments,
    )


def test_there_must_be_a_weight_per_example():
    with pytest.raises(ValueError, match=r"'weights'.*shape \(9,\).*shape \(12,\)"):
        fit(*data(count=9))


def test_weights_must_not_become_negative():
    scale = bt.Unconstrained(initial=np.ones(COUNT))
    with pytest.raises(ValueError, match=r"'weights'.*must not become negative"):
        fit(*data(), {"scale": scale})


def test_data_must_be_arrays():
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(4)
    with pytest.raises(TypeError, match=r"'weights'.*must be arrays"):
        fit(dataset, None)


def test_a_best_response_is_refused():
    hp = bt.HyperparameterSpace(w=bt.Uniform(0, 1, initial=np.full(COUNT, 0.5)))
    inputs = keras.Input((3,))
    model = bt.BilevelModel(inputs, bt.HyperDense(1)(inputs), hyperparameters=hp)
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="DeltaSTN would fit a response to 12"):
        model.fit(*data(), sample_weight=hp["w"], validation_data=data(1), verbose=0)
