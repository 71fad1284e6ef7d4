"""Predictions averaged over draws of the weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt

PRIOR = bt.NormalPrior(data_size=10)


def make_model(units=1, activation=None, loss=None, plain=True):
    inputs = keras.Input((3,))
    layer = bt.VariationalDense(
        units, activation=activation, prior=PRIOR, initial_scale=0.4, seed=1
    )
    outputs = layer(inputs)
    if plain:
        model = keras.Model(inputs, outputs)
    else:
        hp = bt.HyperparameterSpace(noise=bt.Positive(initial=4.0))
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        loss = bt.losses.GaussianLikelihood(hp["noise"])
    if loss is not None:
        options = {} if plain else {"method": bt.methods.T1T2()}
        model.compile("sgd", loss=loss, **options)
    return model


def inputs(count=10):
    return np.random.default_rng(0).normal(size=(count, 3)).astype("float32")


@pytest.mark.parametrize("plain", [True, False])
def test_law_of_total_variance(plain):
    loss = bt.losses.GaussianLikelihood(4.0)
    model, x = make_model(loss=loss, plain=plain), inputs()
    found = bt.predictive(model, x, draws=4000, batch_size=4)
    kernel, bias = [q.scale().numpy() for q in model.layers[1].posteriors()]
    between = x**2 @ kernel**2 + bias**2
    error = np.sqrt(between / 4000)
    assert np.all(np.abs(found.mean - model.predict(x, verbose=0)) < 5 * error)
    np.testing.assert_allclose(found.variance, between + 0.25, rtol=0.15)
    assert found.entropy is None


def test_other_losses_have_no_noise():
    model, x = make_model(loss="mse"), inputs()
    kernel, bias = [q.scale().numpy() for q in model.layers[1].posteriors()]
    found = bt.predictive(model, x, draws=4000)
    np.testing.assert_allclose(found.variance, x**2 @ kernel**2 + bias**2, rtol=0.15)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("kind", ["sparse", "binary"])
def test_entropy_and_information(kind, from_logits):
    if kind == "sparse":
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
        units, activation, to_probabilities = 3, "softmax", tf.nn.softmax
    else:
        loss = keras.losses.BinaryCrossentropy(from_logits=from_logits)
        units, activation, to_probabilities = 1, "sigmoid", tf.sigmoid
    model = make_model(units, None if from_logits else activation, loss)
    x = inputs()
    found = bt.predictive(model, x, draws=1000)
    call = tf.function(lambda: model(x))
    with bt.sampling():
        draws = np.stack([call() for _ in range(1000)])
    draws = to_probabilities(draws).numpy() if from_logits else draws
    both = np.concatenate([draws, 1 - draws], -1) if kind == "binary" else draws
    mean_entropy = -(both * np.log(both)).sum(-1).mean(0)
    entropy = -(both.mean(0) * np.log(both.mean(0))).sum(-1)
    np.testing.assert_allclose(found.mean, draws.mean(0), atol=0.05)
    np.testing.assert_allclose(found.variance, draws.var(0), atol=0.02)
    np.testing.assert_allclose(found.entropy, entropy, atol=0.05)
    np.testing.assert_allclose(
        found.mutual_information, entropy - mean_entropy, atol=0.03
    )
    assert np.all(found.mutual_information > 0)


def test_traces_once(monkeypatch):
    model = make_model(loss="mse")
    calls = []
    call = bt.VariationalDense.call

    def counted(self, *args, **kwargs):
        calls.append(1)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(bt.VariationalDense, "call", counted)
    bt.predictive(model, inputs(10), draws=50, batch_size=3)
    # The first draw and the body of the loop.
    assert len(calls) == 2


def test_errors():
    model = make_model()
    with pytest.raises(ValueError, match="`draws` must be a whole number, at least 2"):
        bt.predictive(model, inputs(), draws=1)
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="predictive needs weights with a posterior"):
        bt.predictive(plain, inputs())
    two = keras.Model(model.inputs, [model.outputs[0], model.outputs[0]])
    with pytest.raises(ValueError, match="must have one output"):
        bt.predictive(two, inputs())


def test_several_inputs_and_losses_in_a_list():
    ins = [keras.Input((2,)), keras.Input((1,))]
    x = keras.layers.Concatenate()(ins)
    model = keras.Model(ins, bt.VariationalDense(3, prior=PRIOR)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=[loss])
    x = inputs()
    found = bt.predictive(model, [x[:, :2], x[:, 2:]])
    np.testing.assert_allclose(found.mean.sum(-1), np.ones(10), rtol=1e-5)


def test_a_model_without_a_loss_does_not_say_what_it_predicts():
    with pytest.raises(ValueError, match="`model` must be compiled"):
        bt.predictive(make_model(), inputs())
