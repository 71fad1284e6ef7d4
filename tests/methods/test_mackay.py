"""MacKay's updates of precisions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.objectives.evidence import LinearRegression, compiled, penalized, space

HESSIANS = ["exact", "ggn", "kronecker", "diagonal"]


def settle(known, rounds):
    """Updates, each at the weights that are then the most probable."""
    step = tf.function(
        lambda: known.model.outer_train_step(((known.x, known.y, None),)),
        autograph=False,
    )
    for _ in range(rounds):
        logs = step()
        known.train()
    return logs


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.usefixtures("float64")
def test_gradient_vanishes_at_the_fixed_point(hessian):
    objective = bt.objectives.LaplaceEvidence(hessian)
    known = LinearRegression(objective, method=bt.methods.MacKayUpdate())
    before = bt.methods.ExactImplicit().hypergradient(known.problem()).gradients[0]
    settle(known, 80)
    after = bt.methods.ExactImplicit().hypergradient(known.problem()).gradients[0]
    assert np.linalg.norm(before) > 1e-2
    np.testing.assert_allclose(after, np.zeros(2), atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_update_is_the_formula():
    precision = [[0.3], [1.0], [20.0]]
    known = LinearRegression(precision=precision, method=bt.methods.MacKayUpdate(1e6))
    a, noise = known.precisions(known.hp.unconstrained)
    w = np.concatenate([known.layer.kernel, [known.layer.bias]])[:, 0]
    hessian = noise * known.design.T @ known.design + np.diag(a)
    gamma = 1 - a * np.diag(np.linalg.inv(hessian))
    squares = np.sum((known.y[:, 0] - known.design @ w) ** 2)
    logs = known.model.outer_train_step(((known.x, known.y, None),))
    found = known.hp.values()
    np.testing.assert_allclose(found["precision"][:, 0], (gamma / w**2)[:3], rtol=1e-8)
    np.testing.assert_allclose(found["noise"], (20 - gamma.sum()) / squares, rtol=1e-8)
    np.testing.assert_allclose(logs["effective_parameters"], gamma.sum(), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_a_weight_at_its_mean_moves_no_further_than_the_end():
    known = LinearRegression(method=bt.methods.MacKayUpdate())
    known.layer.kernel.assign(np.zeros((3, 1)))
    for _ in range(8):
        known.model.outer_train_step(((known.x, known.y, None),))
    np.testing.assert_allclose(known.hp.values()["precision"], 1e4, rtol=1e-4)


@pytest.mark.parametrize("jit", [False, True])
def test_fit(jit):
    known = LinearRegression(
        method=bt.methods.MacKayUpdate(train_steps=10),
        optimizer=keras.optimizers.Adam(0.05),
        jit_compile=jit,
    )
    x, y = known.x.astype("float32"), known.y.astype("float32")
    history = known.model.fit(x, y, batch_size=20, epochs=80, verbose=0).history
    settled = known.hp.values()
    keras.backend.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    exact = LinearRegression(method=bt.methods.MacKayUpdate())
    logs = settle(exact, 50)
    for name, value in exact.hp.values().items():
        np.testing.assert_allclose(settled[name], value, rtol=0.01)
    for name in ("effective_parameters", "log_evidence"):
        np.testing.assert_allclose(history[name][-1], logs[name], rtol=1e-3)


def test_max_factor():
    with pytest.raises(ValueError, match="`max_factor` must be above 1"):
        bt.methods.MacKayUpdate(1.0)


def test_it_needs_the_evidence():
    with pytest.raises(ValueError, match="needs objective="):
        LinearRegression(
            bt.objectives.ValidationLoss(), method=bt.methods.MacKayUpdate()
        )


def test_it_finds_precisions_alone():
    hp = space(mean=bt.Unconstrained(0.1))
    prior = bt.NormalPrior(hp["precision"], hp["mean"], data_size=8)
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1, **penalized(prior))(inputs)
    with pytest.raises(ValueError, match="Received: mean, which are not"):
        compiled(hp, inputs, outputs, method=bt.methods.MacKayUpdate())


def test_config():
    config = bt.methods.MacKayUpdate(3.0, train_steps=7).get_config()
    assert bt.methods.MacKayUpdate.from_config(config).get_config() == config
    assert config["max_factor"] == 3.0


def test_survives_saving(tmp_path):
    known = LinearRegression(method=bt.methods.MacKayUpdate())
    known.model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit = {"batch_size": 20, "epochs": 5, "verbose": 0}
    histories = [m.fit(known.x, known.y, **fit).history for m in (known.model, loaded)]
    np.testing.assert_allclose(
        histories[0]["log_evidence"], histories[1]["log_evidence"], rtol=1e-5
    )
