"""Priors at their best parameters in closed form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt

FEATURES, UNITS, COUNT = 3, 4, 12
SHAPES = {"scalar": (), "unit": (UNITS,), "weight": (FEATURES, UNITS)}


def make_model(precision=(), mean=None, *, method=None, layers=1, **scales):
    """Layers of FEATURES → UNITS with one prior, without biases."""
    scales = {
        "a": bt.LogUniform(1e-4, 1e4, initial=np.full(precision, 3.0)),
        **({} if mean is None else {"m": bt.Unconstrained(np.full(mean, 0.2))}),
        **scales,
    }
    hp = bt.HyperparameterSpace(scales, dtype=keras.config.floatx())
    prior = bt.NormalPrior(hp["a"], 0.1 if mean is None else hp["m"], data_size=COUNT)
    inputs = keras.Input((FEATURES,))
    made = [
        bt.VariationalDense(UNITS, prior=prior, use_bias=False) for _ in range(layers)
    ]
    outputs = keras.layers.Add()([layer(inputs) for layer in [*made, made[0]]])
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    rng = np.random.default_rng(0)
    for layer in made:
        for variable in layer.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
    return compiled(model, method)


def compiled(model, method=None, **arguments):
    arguments = {
        "objective": bt.ELBO(),
        "loss": bt.losses.GaussianLikelihood(),
        **arguments,
    }
    model.compile("sgd", method=method or bt.methods.GravesUpdate(), **arguments)
    return model


def divergence_gradient(model):
    """Of KL(q ‖ p) in the unconstrained hyperparameters."""
    values = model.hyperparameters.unconstrained.value
    layers = [la for la in model.layers if isinstance(la, bt.VariationalDense)]
    with tf.GradientTape() as tape:
        tape.watch(values)
        divergences = [
            q.prior.kl_divergence(q.distribution())
            for layer in layers
            for q in layer.posteriors()
        ]
        total = tf.add_n(divergences)
    return tape.gradient(total, values)


@pytest.mark.parametrize("precision", SHAPES)
@pytest.mark.parametrize("mean", [None, "scalar", "unit"])
@pytest.mark.parametrize("layers", [1, 2])
def test_divergence_is_least_after_the_update(float64, precision, mean, layers):
    if mean is not None:
        mean = SHAPES[mean]
    model = make_model(SHAPES[precision], mean, layers=layers)
    assert np.max(np.abs(divergence_gradient(model))) > 0.1
    # One update is enough unless weights share m and not A.
    update = tf.function(lambda: model.method.outer_step(model, None, None))
    for _ in range(100 if SHAPES[precision] and mean is not None else 1):
        update()
    np.testing.assert_allclose(divergence_gradient(model), 0.0, atol=1e-9)


def test_values_are_those_of_the_paper(float64):
    model = make_model((), ())
    [posterior] = model.layers[1].posteriors()
    mean, scale = np.asarray(posterior.mean), np.asarray(posterior.scale())
    model.method.outer_step(model, None, None)
    values = model.hyperparameters.values()
    np.testing.assert_allclose(values["m"], mean.mean(), rtol=1e-12)
    expected = 1 / np.mean(scale**2 + (mean - mean.mean()) ** 2)
    np.testing.assert_allclose(values["a"], expected, rtol=1e-10)


@pytest.mark.parametrize(("low", "high", "end"), [(1e2, 1e3, 1e2), (1e-4, 1e-2, 1e-2)])
def test_values_stay_in_range(low, high, end):
    scale = bt.LogUniform(low, high, initial=(low * high) ** 0.5)
    model = make_model(a=scale)
    model.method.outer_step(model, None, None)
    value = model.hyperparameters.values()["a"]
    assert low < value < high
    np.testing.assert_allclose(value, end, rtol=1e-4)
    model.hyperparameters.assign({"a": value})


@pytest.mark.parametrize("jit", [False, True])
def test_fit_updates_after_every_round(jit):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(COUNT, FEATURES)).astype("float32")
    y = np.tile(x.sum(1, keepdims=True), (1, UNITS))
    method = bt.methods.GravesUpdate(train_steps=1, warmup_epochs=1)
    model = compiled(make_model(), method, jit_compile=jit)
    model.fit(x, y, batch_size=COUNT, epochs=1, verbose=0)
    np.testing.assert_allclose(model.hyperparameters.values()["a"], 3.0, rtol=1e-5)
    model.fit(x, y, batch_size=COUNT, epochs=2, verbose=0)
    np.testing.assert_allclose(divergence_gradient(model), 0.0, atol=1e-4)


def test_survives_saving(tmp_path):
    model = make_model(method=bt.methods.GravesUpdate(train_steps=2, warmup_epochs=1))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.method.get_config() == model.method.get_config()


def test_needs_the_bound():
    with pytest.raises(ValueError, match=r"`objective` must be bilevel_tf.ELBO"):
        compiled(make_model(), objective=None)


def test_other_hyperparameters_are_named():
    with pytest.raises(ValueError, match="other is in no prior"):
        make_model(other=bt.Unconstrained(0.0))


def test_mixtures_have_no_closed_form():
    hp = bt.HyperparameterSpace(a=bt.Positive(initial=1.0))
    prior = bt.regularizers.ScaleMixturePrior((hp["a"], 400.0), data_size=COUNT)
    inputs = keras.Input((FEATURES,))
    outputs = bt.VariationalDense(UNITS, prior=prior)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    with pytest.raises(ValueError, match=r"NormalPrior alone.*ScaleMixturePrior"):
        compiled(model)


def test_a_precision_that_is_also_that_of_the_noise_is_named():
    hp = bt.HyperparameterSpace(both=bt.LogUniform(1e-3, 1e3, initial=1.0))
    inputs = keras.Input((3,))
    prior = bt.NormalPrior(hp["both"], data_size=10)
    outputs = bt.VariationalDense(1, prior=prior)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    with pytest.raises(ValueError, match="both acts elsewhere as well"):
        model.compile(
            loss=bt.losses.GaussianLikelihood(hp["both"]),
            objective=bt.ELBO(),
            method=bt.methods.GravesUpdate(),
        )
