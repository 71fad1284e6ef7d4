"""The evidence by Laplace's approximation, against what is known in closed form."""

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import bilevel_tf as bt
from tests.objectives.evidence import (
    LinearRegression,
    check_derivatives,
    check_graph_and_xla_agree,
    compiled,
    evidence_function,
    penalized,
    regression_data,
    small_network,
    space,
)

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

DENSE = ["exact", "ggn"]
KINDS = [
    ("gaussian", None, 2),
    ("categorical", None, 3),
    ("categorical", "softmax", 3),
    ("bernoulli", None, 1),
    ("bernoulli", "sigmoid", 1),
]


@pytest.mark.parametrize("precision", [2.0, [[0.3], [1.0], [20.0]]])
@pytest.mark.parametrize("hessian", DENSE)
@pytest.mark.usefixtures("float64")
def test_linear_regression_has_its_exact_evidence(hessian, precision):
    known = LinearRegression(bt.objectives.LaplaceEvidence(hessian), precision)
    outer_loss, _, _ = known.problem().outer_gradients()
    np.testing.assert_allclose(-20 * outer_loss, known.log_evidence(), rtol=1e-10)


@pytest.mark.parametrize("precision", [2.0, [[0.3], [1.0], [20.0]]])
@pytest.mark.parametrize("hessian", DENSE)
@pytest.mark.usefixtures("float64")
def test_linear_regression_has_the_exact_gradient(hessian, precision):
    known = LinearRegression(bt.objectives.LaplaceEvidence(hessian), precision)
    found = known.model.method.hypergradient(known.problem()).gradients[0]
    start = np.array(known.hp.unconstrained)

    def difference(step):
        ends = (known.log_evidence(start + step), known.log_evidence(start - step))
        return (ends[0] - ends[1]) / (2 * np.linalg.norm(step)) / -20

    # Richardson: the error falls with the fourth power.
    expected = [
        (4 * difference(1e-3 * e) - difference(2e-3 * e)) / 3
        for e in np.eye(start.size)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_both_hessians_are_one_for_a_linear_model():
    values = []
    for hessian in DENSE:
        known = LinearRegression(bt.objectives.LaplaceEvidence(hessian))
        known.layer.set_weights([np.ones((3, 1)), np.ones(1)])
        values.append(known.problem().outer_gradients()[0])
    np.testing.assert_allclose(*values, rtol=1e-12)


@pytest.mark.parametrize(("kind", "activation", "units"), KINDS)
@pytest.mark.parametrize("hessian", DENSE)
@pytest.mark.usefixtures("float64")
def test_derivatives_are_those_of_the_whole_objective(hessian, kind, activation, units):
    model, batch = small_network(
        bt.objectives.LaplaceEvidence(hessian), kind, activation, units
    )
    check_derivatives(model, batch)


@pytest.mark.parametrize("kind", ["categorical", "bernoulli"])
@pytest.mark.usefixtures("float64")
def test_gauss_newton_does_not_depend_on_where_the_softmax_is(kind):
    activation, units = {"categorical": ("softmax", 3), "bernoulli": ("sigmoid", 1)}[
        kind
    ]
    values = []
    for final in (None, activation):
        keras.utils.set_random_seed(3)
        model, batch = small_network(
            bt.objectives.LaplaceEvidence("ggn"), kind, final, units
        )
        loss, weights, hyperparameters = evidence_function(model, batch)
        values.append(loss(weights, hyperparameters))
    np.testing.assert_allclose(*values, rtol=1e-10)


@pytest.mark.parametrize("hessian", DENSE)
def test_eager_graph_and_xla_agree(hessian):
    model, batch = small_network(
        bt.objectives.LaplaceEvidence(hessian), "categorical", None, 3
    )
    check_graph_and_xla_agree(model, batch)


@pytest.mark.parametrize("jit", [False, True])
def test_a_fit_finds_the_most_probable_hyperparameters(jit):
    known = LinearRegression(
        bt.objectives.LaplaceEvidence("exact"),
        optimizer=keras.optimizers.Adam(0.05),
        hyper_optimizer=keras.optimizers.Adam(0.1),
        method=bt.methods.ExactImplicit(train_steps=1),
        jit_compile=jit,
    )
    x, y = known.x.astype("float32"), known.y.astype("float32")
    history = known.model.fit(x, y, batch_size=20, epochs=120, verbose=0).history
    optimum = scipy.optimize.minimize(
        lambda h: -known.log_evidence(h), np.array(known.hp.unconstrained, "float64")
    )
    expected = known.hp.constrain(tf.constant(optimum.x))
    for name, value in known.hp.values().items():
        np.testing.assert_allclose(value, expected[name], rtol=0.02)
    np.testing.assert_allclose(history["log_evidence"][-1], -optimum.fun, rtol=1e-3)


@pytest.mark.usefixtures("float64")
def test_one_objective_judges_two_models():
    objective = bt.objectives.LaplaceEvidence()
    first = LinearRegression(objective)
    expected = first.model.evaluate_objective(first.x, first.y)
    hp = space()
    inputs = keras.Input((3,))
    prior = penalized(bt.NormalPrior(hp["precision"], data_size=7))
    second = compiled(hp, inputs, keras.layers.Dense(2, **prior)(inputs), objective)
    x, y = regression_data(7, outputs=2)
    second.evaluate_objective(x, y)
    assert first.model.evaluate_objective(first.x, first.y) == expected
