"""HOAG: its tolerances, its steps, and where it ends."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_breast_cancer

import bilevel_tf as bt
from bilevel_tf.methods.functional import structured_problem
from tests.methods.problems import Quadratic


class Logistic:
    """L2-regularised logistic regression, factor e^h, in the form of the paper."""

    def __init__(self):
        x, y = load_breast_cancer(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        x, y = ((x - x.mean(0)) / x.std(0))[order], (2.0 * y - 1)[order]
        self.train = tf.constant(x[:280]), tf.constant(y[:280])
        self.valid = tf.constant(x[280:]), tf.constant(y[280:])
        self.weights = tf.zeros(30, tf.float64)

    def loss(self, data, w):
        x, y = data
        return tf.reduce_sum(tf.nn.softplus(-y * tf.linalg.matvec(x, w)))

    def inner(self, w, h):
        return self.loss(self.train, w) + 0.5 * tf.reduce_sum(tf.exp(h) * w**2)

    def outer(self, w, h):
        return self.loss(self.valid, w)

    def minimize(self, method, h, **arguments):
        h = tf.constant(h, tf.float64)
        return method.minimize(self.inner, self.outer, self.weights, h, **arguments)

    def retrained(self, h):
        """Q at weights trained with penalty h to the end."""
        exact = bt.methods.HOAG(tolerance=1e-9, least_tolerance=1e-9)
        found = self.minimize(exact, h, outer_iterations=1)
        return float(found.history["outer_loss"][0])


@functools.cache
def logistic():
    return Logistic()


def test_it_converges_on_logistic_regression():
    problem = logistic()
    found = problem.minimize(bt.methods.HOAG(decay=0.8), 6.0, outer_iterations=50)
    end = float(found.hyperparameters)
    below, here, above = (problem.retrained(end + d) for d in (-0.1, 0.0, 0.1))
    assert here < min(below, above)
    history = found.history
    np.testing.assert_allclose(history["outer_loss"][-1], here, rtol=1e-4)
    assert history["gradient_norm"][-1] < 1e-3 * history["gradient_norm"][0]


def test_the_tolerance_schedule_is_honoured():
    history = logistic().minimize(bt.methods.HOAG(), 3.0, outer_iterations=20).history
    expected = 0.1 * 0.9 ** np.arange(20)
    np.testing.assert_allclose(history["tolerance"], expected, rtol=1e-5)
    assert np.all(history["residual"] <= expected)
    assert np.all(history["inner_gradient_norm"] <= expected)
    # And no more is done than is asked for.
    assert np.max(history["residual"] / expected) > 0.5
    assert history["iterations"][-1] < 10


def test_the_history_says_why_every_solve_stopped():
    found = logistic().minimize(bt.methods.HOAG(), 3.0, outer_iterations=2)
    assert found.history["converged"].tolist() == [True, True]
    assert found.history["status"].tolist() == [bt.methods.Status.CONVERGED] * 2
    method = bt.methods.HOAG(1e-9, least_tolerance=1e-9, iterations=1)
    found = logistic().minimize(method, 3.0, outer_iterations=1)
    assert not found.history["converged"][0]
    assert found.history["status"][0] == bt.methods.Status.OUT_OF_ITERATIONS


def test_it_warns_if_a_solve_breaks_down():
    # The inner loss does not change along w[0] − w[1].
    inner = lambda w, h: (w[0] + w[1] - h) ** 2  # noqa: E731
    outer = lambda w, h: w[0] + 2.0 * w[1]  # noqa: E731
    w, h = tf.zeros(2, tf.float64), tf.constant(1.0, tf.float64)
    method = bt.methods.HOAG(tolerance=1e-3)
    with pytest.warns(RuntimeWarning, match=r"in 1 of 1 outer.*SINGULAR\. The Hess"):
        method.minimize(inner, outer, w, h, outer_iterations=1)


def test_a_step_that_increases_the_loss_is_taken_back():
    # A first step of length 1 is too long here.
    outer = lambda w, h: 1e3 * tf.reduce_sum((w - 0.7) ** 2)  # noqa: E731
    inner = lambda w, h: tf.reduce_sum((w - h) ** 2)  # noqa: E731
    start = tf.constant(0.5, tf.float64)
    method = bt.methods.HOAG(tolerance=1e-8)
    found = method.minimize(inner, outer, start, start, outer_iterations=30)
    history = found.history
    first = np.flatnonzero(~history["accepted"])[0]
    assert history["outer_loss"][first] > history["outer_loss"][first - 1]
    assert history["step_size"][first] == history["step_size"][first - 1] / 2
    assert history["outer_loss"][first + 1] == history["outer_loss"][first - 1]
    np.testing.assert_allclose(found.hyperparameters, 0.7, atol=1e-3)
    np.testing.assert_allclose(found.weights, found.hyperparameters, atol=1e-6)


def test_one_factor_per_feature_fits_better():
    problem = logistic()
    one = problem.minimize(bt.methods.HOAG(), 0.35, outer_iterations=20)
    many = problem.minimize(bt.methods.HOAG(), np.full(30, 0.35), outer_iterations=20)
    assert many.hyperparameters.shape == (30,)
    assert many.history["outer_loss"][-1] < one.history["outer_loss"][-1] - 0.5


def test_hyperparameters_stay_between_their_ends():
    found = logistic().minimize(
        bt.methods.HOAG(), 3.0, low=2.0, high=3.5, outer_iterations=10
    )
    assert float(found.hyperparameters) == 2.0


def test_the_callback_sees_every_iteration():
    seen = []
    found = logistic().minimize(
        bt.methods.HOAG(),
        3.0,
        outer_iterations=4,
        callback=lambda entry, h: seen.append((entry["outer_loss"], float(h))),
    )
    losses, tried = zip(*seen, strict=True)
    np.testing.assert_array_equal(losses, found.history["outer_loss"])
    assert tried[0] == 3.0
    assert tried[-1] == float(found.hyperparameters)


def test_a_solve_starts_from_the_last_solution():
    quadratic = Quadratic()
    problem, _ = structured_problem(
        quadratic.inner, quadratic.outer, quadratic.optimum, quadratic.h, None
    )
    method = bt.methods.HOAG()
    rough, solution = method.warm_hypergradient(problem, 0, None)
    assert 0 < rough.report["iterations"] < 6
    again, _ = method.warm_hypergradient(problem, 0, solution)
    assert again.report["iterations"] == 0
    np.testing.assert_allclose(again.gradients, rough.gradients)
    fine, _ = method.warm_hypergradient(problem, 100, solution)
    np.testing.assert_allclose(
        fine.gradients[0], quadratic.hypergradient, rtol=1e-3, atol=1e-4
    )


def test_the_gap_is_what_training_to_the_end_changes():
    quadratic = Quadratic()
    gaps = []
    for distance in (1e-2, 1e-3):
        away = quadratic.optimum + distance
        found = bt.hypergradient(
            quadratic.inner,
            quadratic.outer,
            away,
            quadratic.h,
            bt.methods.ExactImplicit(),
        )
        best = quadratic.outer(quadratic.optimum, quadratic.h)
        gaps.append(float(found.outer_loss - best - found.report["gap"]))
    np.testing.assert_allclose(gaps[1] / gaps[0], 1e-2, rtol=1e-3)


def test_a_loss_without_minimum_is_said():
    inner = lambda w, h: (w - h) ** 2  # noqa: E731
    outer = lambda w, h: tf.math.log(-w)  # noqa: E731
    w, h = tf.constant(1.0, tf.float64), tf.constant(2.0, tf.float64)
    with pytest.raises(FloatingPointError, match=r"in outer iteration 0, at hyper.*2"):
        bt.methods.HOAG().minimize(inner, outer, w, h)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"tolerance": 0.0}, "tolerance"),
        ({"decay": 1.5}, "decay"),
        ({"decay": 0.0}, "decay"),
        ({"least_tolerance": -1.0}, "least_tolerance"),
        ({"iterations": 0}, "iterations"),
    ],
)
def test_options_out_of_range_are_refused(arguments, named):
    with pytest.raises(ValueError, match=f"`{named}` must be"):
        bt.methods.HOAG(**arguments)


def test_minimize_refuses_bad_counts():
    with pytest.raises(ValueError, match="`outer_iterations` must be"):
        logistic().minimize(bt.methods.HOAG(), 1.0, outer_iterations=0)


def minimize_ridge(**arguments):
    """L = ½ (w − 1)² + ½ e^h w² is least at 1 / (1 + e^h); Q = ½ (w − ½)² at h = 0."""
    return bt.methods.HOAG(decay=0.5).minimize(
        lambda w, h: 0.5 * (w - 1.0) ** 2 + 0.5 * tf.exp(h) * w**2,
        lambda w, h: 0.5 * (w - 0.5) ** 2,
        tf.constant(0.0, tf.float64),
        tf.constant(1.5, tf.float64),
        **arguments,
    )


def test_it_stops_at_the_outer_tolerance():
    found = minimize_ridge(outer_tolerance=1e-5, outer_iterations=200)
    norms = found.history["gradient_norm"][found.history["accepted"]]
    assert found.status is bt.methods.Status.CONVERGED
    assert len(found.history["outer_loss"]) < 200
    assert norms[-1] <= 1e-5 < norms[:-1].min()
    np.testing.assert_allclose(found.hyperparameters, 0.0, atol=1e-3)


def test_without_an_outer_tolerance_it_takes_all_steps():
    found = minimize_ridge(outer_iterations=7)
    assert found.status is bt.methods.Status.OUT_OF_ITERATIONS
    assert len(found.history["outer_loss"]) == 7


def test_at_a_bound_the_rest_of_the_hypergradient_counts():
    # The best h, 0, is below the bound.
    found = minimize_ridge(low=0.5, outer_tolerance=1e-6, outer_iterations=100)
    assert found.status is bt.methods.Status.CONVERGED
    assert float(found.hyperparameters) == 0.5
    assert found.history["gradient_norm"][-1] > 1e-2


@pytest.mark.parametrize("value", [-1.0, float("nan"), "small", True])
def test_outer_tolerance_out_of_range(value):
    with pytest.raises(ValueError, match="`outer_tolerance` must be non-negative"):
        minimize_ridge(outer_tolerance=value)
