"""Priors on weights."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

import bilevel_tf as bt
from bilevel_tf.regularizers.weight_prior import half_squares

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

tfd = tfp.distributions
W = np.random.default_rng(0).normal(size=(3, 2))


def space(**scales):
    scales = scales or {"a": bt.LogUniform(1e-3, 1e3, initial=4.0)}
    return bt.HyperparameterSpace(scales, dtype="float64")


@pytest.mark.parametrize("shape", [(), (2,), (3, 1), (3, 2)])
def test_log_prob_is_the_normal_density(shape):
    precision = np.random.default_rng(1).uniform(0.5, 2.0, shape)
    hp = space(a=bt.Positive(initial=precision), m=bt.Unconstrained(initial=0.3))
    prior = bt.NormalPrior(hp["a"], hp["m"], data_size=5)
    expected = scipy.stats.norm(0.3, precision**-0.5).logpdf(W).sum()
    np.testing.assert_allclose(prior.log_prob(W), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["normal", "mixture"])
def test_penalty_is_the_gradient_of_the_density_per_example(kind):
    prior = bt.NormalPrior(2.0, 0.5, data_size=7)
    if kind == "mixture":
        prior = bt.regularizers.ScaleMixturePrior((1.0, 9.0), 0.3, data_size=7)
    w = tf.constant(W)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(w)
        penalty, log_prob = prior(w), prior.log_prob(w)
    expected = -tape.gradient(log_prob, w) / 7
    np.testing.assert_allclose(tape.gradient(penalty, w), expected, rtol=1e-12)


def test_mixture_density():
    prior = bt.regularizers.ScaleMixturePrior((1.0, 9.0), 0.3, data_size=7)
    wide, narrow = scipy.stats.norm(0, 1).pdf(W), scipy.stats.norm(0, 1 / 3).pdf(W)
    expected = np.log(0.3 * wide + 0.7 * narrow).sum()
    np.testing.assert_allclose(prior.log_prob(W), expected, rtol=1e-12)


def test_kl_divergence_is_that_of_the_seed():
    # ½ (Tr[A A_q⁻¹] + (μ − μ_q)ᵀ A (μ − μ_q) − u + ln|A⁻¹| − ln|A_q⁻¹|)
    rng = np.random.default_rng(2)
    sigma, a = rng.uniform(0.1, 1.0, W.shape), rng.uniform(0.5, 2.0, (3, 1))
    hp = space(a=bt.Positive(initial=a))
    found = bt.NormalPrior(hp["a"], 0.2, data_size=1).kl_divergence(
        tfd.Normal(tf.constant(W), tf.constant(sigma))
    )
    full = np.broadcast_to(a, W.shape)
    terms = full * sigma**2 + full * (0.2 - W) ** 2 - 1
    terms = terms - np.log(full) - np.log(sigma**2)
    np.testing.assert_allclose(found, 0.5 * terms.sum(), rtol=1e-10)


def test_estimated_divergence_has_the_right_mean():
    # With two equal components the mixture is a normal, whose divergence is known.
    mixture = bt.regularizers.ScaleMixturePrior((2.0, 2.0), data_size=1)
    posterior = tfd.Normal(tf.constant(0.4, tf.float64), tf.constant(0.5, tf.float64))
    draws = posterior.sample(20_000, seed=(1, 2))
    estimates = tf.vectorized_map(
        lambda draw: mixture.kl_divergence(posterior, draw), draws
    )
    exact = bt.NormalPrior(2.0, data_size=1).kl_divergence(posterior)
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 5 * error


def test_gradient_in_the_hyperparameters():
    hp = space()
    prior = bt.NormalPrior(hp["a"], data_size=1)
    with tf.GradientTape() as tape:
        tape.watch(hp.unconstrained.value)
        log_prob = prior.log_prob(W)
    slope = tape.gradient(log_prob, hp.unconstrained.value)

    def at(shift):
        start = hp.unconstrained.numpy()
        hp.unconstrained.assign(start + shift)
        value = float(prior.log_prob(W))
        hp.unconstrained.assign(start)
        return value

    np.testing.assert_allclose(slope[0], (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize("kind", ["normal", "mixture"])
def test_a_model_with_priors_survives_saving(kind, tmp_path):
    hp = bt.HyperparameterSpace(
        a=bt.LogUniform(0.1, 10.0, initial=2.0), m=bt.Unconstrained(initial=0.0)
    )
    prior = bt.NormalPrior(hp["a"], hp["m"], data_size=4)
    if kind == "mixture":
        prior = bt.regularizers.ScaleMixturePrior((hp["a"], 100.0), data_size=4)
    inputs = keras.Input((3,))
    outputs = bt.HyperDense(2, kernel_regularizer=prior)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile("sgd", method=bt.methods.T1T2(), loss="mse")
    x = np.ones((4, 3), "float32")
    model.fit(x, x[:, :2], validation_data=(x, x[:, :2]), verbose=0, epochs=6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.losses[0], model.losses[0], rtol=1e-6)
    assert loaded.losses[0] > 0


@pytest.mark.parametrize("precision", [0.0, -1.0, float("inf"), float("nan")])
def test_precision_must_be_positive(precision):
    expected = "`precision` of NormalPrior must be above 0"
    with pytest.raises(ValueError, match=expected):
        bt.NormalPrior(precision, data_size=4)
    expected = "`precisions` of ScaleMixturePrior must be above 0"
    with pytest.raises(ValueError, match=expected):
        bt.regularizers.ScaleMixturePrior((1.0, precision), data_size=4)


def test_precision_must_stay_positive():
    hp = space(a=bt.Unconstrained(initial=1.0))
    expected = r"`precision` of NormalPrior must be above 0.*can take"
    with pytest.raises(ValueError, match=expected):
        bt.NormalPrior(hp["a"], data_size=4)


@pytest.mark.parametrize("data_size", [0, -3, 2.5, True, None])
def test_data_size_must_be_a_count(data_size):
    with pytest.raises(ValueError, match="`data_size` must be the number"):
        bt.NormalPrior(data_size=data_size)


def test_mixture_takes_two_precisions_and_a_share():
    expected = "`precisions` of ScaleMixturePrior must be two"
    with pytest.raises(ValueError, match=expected):
        bt.regularizers.ScaleMixturePrior((1.0,), data_size=4)
    expected = r"`share` of .* must be above 0 and below 1"
    with pytest.raises(ValueError, match=expected):
        bt.regularizers.ScaleMixturePrior(share=1.0, data_size=4)


def test_precision_of_a_wrong_shape_is_refused():
    hp = bt.HyperparameterSpace(a=bt.Positive(initial=np.ones(5)))
    inputs = keras.Input((3,))
    prior = bt.NormalPrior(hp["a"], data_size=4)
    outputs = keras.layers.Dense(2, kernel_regularizer=prior)(inputs)
    with pytest.raises(ValueError, match=r"'a' of shape \(5,\)"):
        bt.BilevelModel(inputs, outputs, hyperparameters=hp)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 4, 5)])
def test_half_squares_and_their_derivatives(float64, shape, jit):
    weight = tf.constant(np.random.default_rng(0).normal(size=shape))

    @tf.function(jit_compile=jit)
    def derivatives():
        with tf.GradientTape() as outer:
            outer.watch(weight)
            with tf.GradientTape() as inner:
                inner.watch(weight)
                value = half_squares(weight)
            gradient = inner.gradient(value, weight)
        return value, gradient, outer.gradient(gradient, weight)

    value, gradient, second = derivatives()
    np.testing.assert_allclose(value, 0.5 * np.sum(weight**2), rtol=1e-14)
    np.testing.assert_array_equal(gradient, weight)
    np.testing.assert_array_equal(second, np.ones(shape))


def test_share_is_a_scalar():
    hp = space(share=bt.Uniform(0.0, 1.0, initial=[0.2, 0.3]))
    expected = r"`share` of .* must be .*'share' of shape \(2,\)"
    with pytest.raises(ValueError, match=expected):
        bt.regularizers.ScaleMixturePrior(share=hp["share"], data_size=1)


def test_precisions_are_two():
    expected = r"`precisions` of .* must be two.*400\.0"
    with pytest.raises(ValueError, match=expected):
        bt.regularizers.ScaleMixturePrior(400.0, data_size=1)
