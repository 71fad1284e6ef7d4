"""Pruning by the posterior's density at zero."""

import keras
import numpy as np
import pytest

import bilevel_tf as bt


def make_model():
    hp = bt.HyperparameterSpace(a=bt.Positive(initial=1.0))
    prior = bt.NormalPrior(hp["a"], data_size=20)
    inputs = keras.Input((4,))
    x = bt.VariationalDense(5, activation="tanh", prior=prior)(inputs)
    outputs = bt.VariationalDense(1, prior=prior)(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    model.compile(
        "sgd",
        loss=bt.losses.GaussianLikelihood(),
        metrics=["mae"],
        method=bt.methods.T1T2(),
    )
    return model


def data():
    x = np.random.default_rng(1).normal(size=(20, 4)).astype("float32")
    return x, x.sum(1, keepdims=True)


def densities(model):
    """Relative densities at zero by path."""
    layers = [la for la in model.layers if isinstance(la, bt.VariationalDense)]
    posteriors = [q for layer in layers for q in layer.posteriors()]
    return {
        q.mean.path: np.asarray(
            q.distribution().prob(0.0) / q.distribution().prob(q.mean.value)
        )
        for q in posteriors
    }


def means(model):
    weights = [v for v in model.trainable_variables if "raw" not in v.path]
    return {v.path: np.array(v) for v in weights}


def test_share_with_the_most_density_at_zero_is_pruned():
    model = make_model()
    before, density = means(model), densities(model)
    found = bt.posterior.prune(model, sparsity=0.5)
    after = means(model)
    # Half of 4·5 + 5 + 5 + 1 weights, rounded.
    assert found.share == 16 / 31
    cut = {path: density[path] > found.threshold - 1e-6 for path in density}
    for path, where in cut.items():
        np.testing.assert_array_equal(after[path], np.where(where, 0, before[path]))
        assert found.shares[path] == where.mean()


def test_threshold():
    model = make_model()
    density = densities(model)
    found = bt.posterior.prune(model, threshold=0.83)
    flat = np.concatenate([d.ravel() for d in density.values()])
    assert found.share == np.mean(flat > 0.83)
    assert 0 < found.share < 1
    assert found.threshold == 0.83


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all(share):
    model = make_model()
    before = means(model)
    assert bt.posterior.prune(model, share).share == share
    for path, value in means(model).items():
        np.testing.assert_array_equal(value, before[path] * (1 - share))


def test_scales_stay():
    model = make_model()
    raw = [np.array(v) for v in model.weights if "raw" in v.path]
    bt.posterior.prune(model, 0.9)
    after = [np.array(v) for v in model.weights if "raw" in v.path]
    assert all(np.array_equal(a, b) for a, b in zip(raw, after, strict=True))


def test_sure_weights_are_ranked_beyond_underflow():
    model = make_model()
    layer = model.layers[1]
    # Densities of exp(-5e5) and less are zero in floating point.
    kernel = np.arange(1.0, 21.0).reshape(4, 5)
    layer.kernel.assign(kernel)
    layer.raw_kernel_scale.assign(np.full((4, 5), -7.0))
    layer.bias.assign(np.full(5, 100.0))
    model.layers[2].kernel.assign(np.full((5, 1), 500.0))
    bt.posterior.prune(model, 10 / 31)
    np.testing.assert_array_equal(
        np.asarray(layer.kernel)[2:], kernel[2:].astype("float32")
    )


def test_curve_leaves_the_model_as_it_was():
    model, (x, y) = make_model(), data()
    before = [np.array(v) for v in model.variables]
    rows = bt.posterior.pruning_curve(
        model, x, y, shares=(0.0, 0.5, 1.0), batch_size=20
    )
    assert all(
        np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True)
    )
    assert [row["share"] for row in rows] == pytest.approx([0.0, 0.5, 1.0], abs=0.02)
    np.testing.assert_allclose(rows[0]["mae"], model.evaluate(x, y, verbose=0)[1])
    np.testing.assert_allclose(rows[2]["mae"], np.abs(y).mean(), rtol=1e-5)
    bt.posterior.prune(model, 0.5)
    np.testing.assert_allclose(rows[1]["mae"], model.evaluate(x, y, verbose=0)[1])


def test_pruned_network_as_plain_keras():
    model, (x, _) = make_model(), data()
    bt.posterior.prune(model, 0.8)
    plain = model.to_keras()
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(plain.predict(x, verbose=0), expected, rtol=1e-6)
    flat = np.concatenate([np.ravel(w) for w in plain.weights])
    assert np.mean(flat == 0) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of `sparsity` and `threshold`"),
        ({"sparsity": 0.5, "threshold": 0.5}, "one of `sparsity` and `threshold`"),
        ({"sparsity": 1.5}, r"`sparsity` must be from 0 to 1.*1.5"),
        ({"threshold": -0.1}, r"`threshold` must be from 0 to 1"),
        ({"sparsity": "most"}, r"`sparsity` must be from 0 to 1.*'most'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        bt.posterior.prune(make_model(), **arguments)


def test_model_without_posteriors():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="prune needs weights with a posterior"):
        bt.posterior.prune(model, 0.5)
    with pytest.raises(ValueError, match=r"`shares` must be from 0 to 1"):
        bt.posterior.pruning_curve(make_model(), *data(), shares=(2.0,))
