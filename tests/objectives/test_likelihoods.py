"""Losses that are negative log likelihoods."""

import types

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.objectives.likelihoods import likelihoods

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")


def make_model(loss, units=1, activation=None, **arguments):
    hp = bt.HyperparameterSpace(noise=bt.LogUniform(1e-2, 1e2, initial=1.0))
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(units, activation=activation)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    loss = loss(hp) if isinstance(loss, types.FunctionType) else loss
    model.compile("sgd", method=bt.methods.T1T2(), loss=loss, **arguments)
    return model


def test_gaussian_likelihood_is_the_density():
    y, f = np.random.default_rng(0).normal(size=(2, 5, 2))
    loss = bt.losses.GaussianLikelihood(4.0, dtype="float64")
    expected = -scipy.stats.norm(f, 0.5).logpdf(y).sum(1).mean()
    np.testing.assert_allclose(loss(y, f), expected, rtol=1e-12)


def test_gaussian_likelihood_of_flat_targets():
    y, f = np.random.default_rng(0).normal(size=(2, 5, 1))
    loss = bt.losses.GaussianLikelihood(dtype="float64")
    np.testing.assert_allclose(loss(y[:, 0], f), loss(y, f), rtol=1e-12)


def test_noise_precision_is_found():
    # The best precision is one over the mean squared error of the validation data.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 3)).astype("float32")
    y = x.sum(1, keepdims=True) + 0.5 * rng.normal(size=(256, 1)).astype("float32")
    hp = bt.HyperparameterSpace(noise=bt.LogUniform(1e-2, 1e2, initial=1.0))
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(
        keras.optimizers.Adam(0.05),
        hyper_optimizer=keras.optimizers.Adam(0.05),
        method=bt.methods.ExactImplicit(train_steps=1),
        loss=bt.losses.GaussianLikelihood(hp["noise"]),
    )
    train, valid = slice(128), slice(128, None)
    # An epoch of 100 steps, since it costs as much as many steps to end one.
    batches = tf.data.Dataset.from_tensors((x[train], y[train])).repeat(100)
    model.fit(
        batches,
        validation_data=(x[valid], y[valid]),
        batch_size=128,
        epochs=3,
        shuffle=False,
        verbose=0,
    )
    errors = model.predict(x[valid], verbose=0) - y[valid]
    np.testing.assert_allclose(hp.values()["noise"], 1 / np.mean(errors**2), rtol=0.02)


def test_noise_precision_survives_saving(tmp_path):
    model = make_model(lambda hp: bt.losses.GaussianLikelihood(hp["noise"]))
    x = np.ones((4, 3), "float32")
    data = x, x[:, :1]
    model.fit(*data, validation_data=data, epochs=6, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.hyperparameters.assign({"noise": 7.0})
    model.hyperparameters.assign({"noise": 7.0})
    expected = model.evaluate(*data, verbose=0)
    np.testing.assert_allclose(loaded.evaluate(*data, verbose=0), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "units", "activation"),
    [
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), 3, None),
        ("sparse_categorical_crossentropy", 3, "softmax"),
        (keras.losses.CategoricalCrossentropy(), 3, "softmax"),
        ("binary_crossentropy", 1, "sigmoid"),
        (bt.losses.GaussianLikelihood(), 2, None),
    ],
)
def test_likelihoods_are_known(loss, units, activation):
    [found] = likelihoods(make_model(loss, units, activation).network, "ELBO")
    assert isinstance(found, keras.losses.Loss)


@pytest.mark.parametrize(
    ("loss", "fault"),
    [
        ("mse", "is not a negative"),
        (keras.losses.Hinge(), "is not a negative"),
        (keras.losses.BinaryCrossentropy(), "mean over 3 outputs"),
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.1), "smoothing"),
        (keras.losses.CategoricalCrossentropy(reduction="sum"), "reduction='sum'"),
        (keras.losses.SparseCategoricalCrossentropy(ignore_class=0), "ignores"),
    ],
)
def test_other_losses_are_not(loss, fault):
    with pytest.raises(ValueError, match=f"ELBO needs `loss`.*{fault}"):
        likelihoods(make_model(loss, 3).network, "ELBO")


def test_weighted_losses_are_not():
    model = make_model("binary_crossentropy", 1, "sigmoid", loss_weights=[2.0])
    with pytest.raises(ValueError, match="`loss_weights` must be left out"):
        likelihoods(model.network, "ELBO")


def test_noise_precision_must_be_positive_and_scalar():
    expected = r"`precision` of GaussianLikelihood .* must be above 0"
    with pytest.raises(ValueError, match=expected):
        bt.losses.GaussianLikelihood(-1.0)
    hp = bt.HyperparameterSpace(noise=bt.Positive(initial=np.ones(2)))
    with pytest.raises(ValueError, match=r"`precision` of .* a scalar hyperparameter"):
        bt.losses.GaussianLikelihood(hp["noise"])


def test_targets_are_not_broadcast():
    loss = bt.losses.GaussianLikelihood()
    with pytest.raises(ValueError, match=r"\(4, 1\) and outputs of shape \(4, 3\)"):
        loss(np.ones((4, 1)), np.ones((4, 3)))
