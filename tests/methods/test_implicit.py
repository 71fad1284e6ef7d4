"""Methods that differentiate the optimality condition."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.methods import Status
from tests.methods.problems import (
    Quadratic,
    SmallNetwork,
    central_differences,
)

EXACT = {
    "exact": bt.methods.ExactImplicit(),
    "conjugate gradient": bt.ConjugateGradient(iterations=6, tolerance=1e-12),
    "conjugate gradient, looped": bt.ConjugateGradient(iterations=99, tolerance=1e-12),
    "Neumann": bt.Neumann(terms=500),
    "Gauss-Newton": bt.methods.GaussNewton(iterations=6, tolerance=1e-12, damping=0.0),
}


@pytest.fixture(scope="module")
def quadratic():
    return Quadratic()


def solve(problem, method, inner=None, weights=None):
    inner = inner or problem.inner
    weights = problem.optimum if weights is None else weights
    return bt.hypergradient(inner, problem.outer, weights, problem.h, method)


def distance(a, b):
    """Largest difference between two structures of tensors."""
    pairs = zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True)
    return max(np.max(np.abs(x - y)) for x, y in pairs)


def composed(problem):
    """The inner loss of a `Quadratic`, in the parts that Gauss-Newton needs."""
    return bt.methods.ComposedLoss(
        predict=lambda w, h: tf.linalg.matvec(problem.a, w),
        loss=lambda outputs, h: 0.5 * tf.reduce_sum((outputs - problem.y) ** 2),
        penalty=lambda w, h: 0.5 * tf.reduce_sum(tf.exp(h) * w**2),
    )


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_exact_methods_equal_the_closed_form(quadratic, name, mode):
    def run():
        return solve(quadratic, EXACT[name], composed(quadratic))

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla", autograph=False)
    found = run()
    assert distance(found.gradients, quadratic.hypergradient) < 1e-8
    assert found.report["converged"]
    loss = quadratic.outer(quadratic.optimum, quadratic.h)
    np.testing.assert_allclose(found.outer_loss, loss)


def test_conjugate_gradient_needs_as_many_iterations_as_dimensions(quadratic):
    errors = []
    for iterations in range(1, 7):
        method = bt.ConjugateGradient(iterations=iterations, tolerance=0.0)
        found = solve(quadratic, method)
        errors.append(distance(found.gradients, quadratic.hypergradient))
        assert found.report["iterations"] == iterations
    assert errors[-1] < 1e-10
    assert min(errors[:-1]) > 1e-6


def test_unrolled_and_looped_conjugate_gradients_agree(quadratic):
    short = solve(quadratic, bt.ConjugateGradient(iterations=32, tolerance=0.03))
    long = solve(quadratic, bt.ConjugateGradient(iterations=33, tolerance=0.03))
    assert distance(short.gradients, long.gradients) == 0
    assert short.report["iterations"] == long.report["iterations"] < 6
    assert short.report["residual"] <= 0.03


def test_neumann_error_falls_geometrically(quadratic):
    top = float(tf.reduce_max(tf.linalg.eigvalsh(quadratic.hessian)))
    rate = 0.9 / top
    eigenvalues = tf.linalg.eigvalsh(quadratic.hessian)
    contraction = float(tf.reduce_max(tf.abs(1.0 - rate * eigenvalues)))
    error = {
        terms: distance(
            solve(quadratic, bt.Neumann(terms, learning_rate=rate)).gradients,
            quadratic.hypergradient,
        )
        for terms in (60, 90)
    }
    np.testing.assert_allclose(error[90] / error[60], contraction**30, rtol=0.01)


def test_neumann_finds_a_rate_that_converges():
    # Far from 1 in scale, where no fixed default would do.
    problem = Quadratic(seed=3)
    inner = lambda w, h: 1e4 * problem.inner(w, h)  # noqa: E731
    found = solve(problem, bt.Neumann(2000), inner)
    assert found.report["converged"]
    assert distance(found.gradients, problem.hypergradient) < 1e-8


def test_a_diverging_series_is_said(quadratic):
    top = float(tf.reduce_max(tf.linalg.eigvalsh(quadratic.hessian)))
    with pytest.warns(RuntimeWarning, match="Neumann: DIVERGED.*`learning_rate`"):
        report = solve(quadratic, bt.Neumann(20, learning_rate=2.5 / top)).report
    assert not report["converged"]
    assert int(report["status"]) == Status.DIVERGED
    assert solve(quadratic, bt.Neumann(20, learning_rate=1.5 / top)).report["converged"]


def test_identity_equals_neumann_without_terms(quadratic):
    identity = solve(quadratic, bt.methods.T1T2())
    series = solve(quadratic, bt.Neumann(0, learning_rate=1.0))
    assert distance(identity.gradients, series.gradients) == 0
    with tf.GradientTape() as tape:
        tape.watch(quadratic.optimum)
        loss = quadratic.outer(quadratic.optimum, quadratic.h)
    slope = tape.gradient(loss, quadratic.optimum)
    mixed = tf.exp(quadratic.h) * quadratic.optimum
    expected = tf.cos(quadratic.h) - slope * mixed
    assert distance(identity.gradients, expected) < 1e-12


def test_damping_adds_to_the_diagonal(quadratic):
    exact = solve(quadratic, bt.methods.ExactImplicit(damping=0.7))
    iterated = solve(quadratic, bt.ConjugateGradient(6, 1e-12, damping=0.7))
    assert distance(exact.gradients, iterated.gradients) < 1e-9
    assert distance(exact.gradients, quadratic.hypergradient) > 1e-3


def test_the_empirical_fisher_is_the_mean_square_of_example_gradients(quadratic):
    def losses(w, h):
        error = tf.linalg.matvec(quadratic.a, w) - quadratic.y
        return 12 * error**2 + 0.5 * tf.reduce_sum(tf.exp(h) * w**2)

    method = bt.methods.EmpiricalFisher(iterations=20, tolerance=1e-13, damping=0.1)
    found = solve(quadratic, method, losses)
    w, h = quadratic.optimum, quadratic.h
    with tf.GradientTape() as tape:
        tape.watch(w)
        value = losses(w, h)
    jacobian = tape.jacobian(value, w)
    fisher = tf.transpose(jacobian) @ jacobian / 24 + 0.1 * tf.eye(6, dtype=tf.float64)
    slope = tf.linalg.matvec(
        quadratic.b,
        tf.linalg.matvec(quadratic.b, w) - quadratic.z,
        transpose_a=True,
    )
    solved = tf.linalg.solve(fisher, slope[:, None])[:, 0]
    expected = tf.cos(h) - solved * tf.exp(h) * w
    assert distance(found.gradients, expected) < 1e-9


def test_gauss_newton_leaves_out_the_curvature_of_the_network():
    network = SmallNetwork()
    w, h = network.weights, network.hyperparameters
    inner = bt.methods.ComposedLoss(
        predict=lambda w, h: network.predict(w, h, network.x),
        loss=lambda outputs, h: tf.reduce_mean(
            tf.exp(h["example"]) * tf.reduce_mean((outputs - network.y) ** 2, -1)
        ),
        penalty=network.penalty,
    )
    np.testing.assert_allclose(inner(w, h), network.inner(w, h))
    options = {"iterations": 200, "tolerance": 1e-12, "damping": 0.1}
    found = bt.hypergradient(
        inner, network.outer, w, h, bt.methods.GaussNewton(**options)
    )
    with pytest.warns(RuntimeWarning, match="NOT_POSITIVE_DEFINITE.*GaussNewton"):
        exact = bt.hypergradient(
            inner, network.outer, w, h, bt.ConjugateGradient(**options)
        )
    assert found.report["converged"]
    assert distance(found.gradients, exact.gradients) > 1e-3


def test_implicit_methods_match_retraining_of_a_network():
    """Central differences of the outer loss at retrained optima."""
    network = SmallNetwork()
    weights, h = network.weights, network.hyperparameters

    def gradients(w, h):
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = network.inner(w, h)
        return tape.gradient(loss, w)

    @tf.function(autograph=False)
    def train(w, h):
        def step(w):
            return tf.nest.map_structure(lambda a, b: a - 0.3 * b, w, gradients(w, h))

        return tf.while_loop(
            lambda w: True, lambda w: (step(w),), (w,), maximum_iterations=10_000
        )[0]

    optimum = train(weights, h)
    slopes = gradients(optimum, h)
    assert max(float(tf.norm(g)) for g in slopes.values()) < 1e-9
    few = {"decay": h["decay"], "scale": h["scale"]}
    expected = central_differences(
        lambda few: network.outer(train(optimum, {**h, **few}), few), few, step=1e-4
    )
    for method in (bt.methods.ExactImplicit(), bt.ConjugateGradient(200, 1e-10)):
        found = bt.hypergradient(network.inner, network.outer, optimum, h, method)
        for name, gradient in expected.items():
            np.testing.assert_allclose(found.gradients[name], gradient, atol=1e-6)


def test_it_does_not_retrace_and_keeps_no_memory(quadratic):
    traces = []

    @tf.function(autograph=False)
    def step(w, h):
        traces.append(1)
        return bt.hypergradient(
            quadratic.inner, quadratic.outer, w, h, bt.ConjugateGradient(6)
        ).gradients

    for _ in range(5):
        step(quadratic.optimum, quadratic.h)
    assert len(traces) == 1


def test_a_tiny_outer_gradient_is_solved_as_well(quadratic):
    outer = lambda w, h: 1e-30 * tf.reduce_sum(w)  # noqa: E731
    method = bt.ConjugateGradient(6, 1e-12)
    w, h = quadratic.optimum, quadratic.h
    small = bt.hypergradient(quadratic.inner, outer, w, h, method)
    large = bt.hypergradient(
        quadratic.inner, lambda w, h: tf.reduce_sum(w), w, h, method
    )
    np.testing.assert_allclose(small.gradients * 1e30, large.gradients, rtol=1e-9)


@pytest.mark.parametrize("shape", [(), (1,), (2, 0), (1, 1)])
def test_weights_of_any_shape(shape):
    w = tf.fill(shape, tf.constant(0.5, tf.float64))
    h = tf.constant(2.0, tf.float64)
    rest = tf.constant([1.0], tf.float64)
    found = bt.hypergradient(
        lambda w, h: h * (tf.reduce_sum(w[0] ** 2) + tf.reduce_sum((w[1] - h) ** 2)),
        lambda w, h: tf.reduce_sum(w[0]) + tf.reduce_sum(w[1]),
        [w, rest],
        h,
        bt.ConjugateGradient(5, 1e-12),
    )
    count = np.prod(shape)
    # dw0/dh = -w0/h; dw1/dh = 1 - (w1 - h)/h
    np.testing.assert_allclose(found.gradients, -count * 0.25 + 1.5, rtol=1e-10)


def test_zero_outer_gradient(quadratic):
    outer = lambda w, h: tf.reduce_sum(h) + 0.0 * tf.reduce_sum(w)  # noqa: E731
    for method in (bt.ConjugateGradient(6), bt.Neumann(5), bt.methods.ExactImplicit()):
        found = bt.hypergradient(
            quadratic.inner, outer, quadratic.optimum, quadratic.h, method
        )
        np.testing.assert_array_equal(found.gradients, np.ones(6))
        assert found.report["converged"]


def test_an_indefinite_hessian_is_said_and_what_there_is_returned():
    w = tf.constant([1.0, 1.0], tf.float64)
    h = tf.constant(1.0, tf.float64)
    inner = lambda w, h: h * w[0] ** 2 - w[1] ** 2 + h * w[1]  # noqa: E731
    outer = lambda w, h: w[0] + 2.0 * w[1]  # noqa: E731
    with pytest.warns(RuntimeWarning, match="ConjugateGradient: NOT_POSITIVE_DEFI"):
        found = bt.hypergradient(inner, outer, w, h, bt.ConjugateGradient(10))
    assert not found.report["converged"]
    assert int(found.report["status"]) == Status.NOT_POSITIVE_DEFINITE
    assert np.isfinite(found.gradients)


def test_a_singular_hessian_is_said():
    w = tf.constant([1.0, 1.0], tf.float64)
    h = tf.constant(1.0, tf.float64)
    inner = lambda w, h: (w[0] + w[1] - h) ** 2  # noqa: E731
    outer = lambda w, h: w[0] + 2.0 * w[1]  # noqa: E731
    for method in (bt.ConjugateGradient(10), bt.methods.ExactImplicit()):
        with pytest.warns(RuntimeWarning, match="SINGULAR.*Add `damping`"):
            found = bt.hypergradient(inner, outer, w, h, method)
        assert not found.report["converged"]
        assert int(found.report["status"]) == Status.SINGULAR


def test_an_infinite_outer_gradient_is_said(quadratic):
    outer = lambda w, h: tf.reduce_sum(tf.sqrt(w - quadratic.optimum))  # noqa: E731
    for method in (
        bt.ConjugateGradient(6),
        bt.Neumann(5),
        bt.methods.ExactImplicit(),
        bt.methods.T1T2(),
        bt.methods.HOAG(),
    ):
        with pytest.warns(RuntimeWarning, match="NOT_FINITE.*Check the data"):
            found = bt.hypergradient(
                quadratic.inner, outer, quadratic.optimum, quadratic.h, method
            )
        assert int(found.report["status"]) == Status.NOT_FINITE


def test_neither_stopping_early_nor_a_graph_warns(quadratic, recwarn):
    found = solve(quadratic, bt.ConjugateGradient(2, 1e-12))
    assert int(found.report["status"]) == Status.OUT_OF_ITERATIONS
    diverging = tf.function(lambda: solve(quadratic, bt.Neumann(20, learning_rate=1.0)))
    assert int(diverging().report["status"]) == Status.DIVERGED
    assert not [w for w in recwarn if w.category is RuntimeWarning]


@pytest.mark.parametrize(
    "method",
    [
        *EXACT.values(),
        bt.methods.T1T2(),
        bt.methods.EmpiricalFisher(damping=1.0),
        bt.methods.HOAG(),
    ],
)
def test_reports_have_the_same_keys(quadratic, method):
    inner = composed(quadratic)
    if isinstance(method, bt.methods.EmpiricalFisher):
        inner = lambda w, h: quadratic.inner(w, h) * tf.ones(3, w.dtype)  # noqa: E731
    report = solve(quadratic, method, inner).report
    assert list(report) == ["status", "converged", "iterations", "residual", "gap"]
    assert report["converged"]
    assert np.isnan(report["residual"]) == isinstance(method, bt.methods.T1T2)


def test_an_unknown_argument_is_named_with_those_that_there_are():
    with pytest.raises(
        TypeError,
        match=r"Neumann has no.*`steps`\. Did you mean .*`train_steps`.*\? Its "
        "arguments are terms, learning_rate, power_iterations, train_steps, "
        r"valid_steps, warmup_epochs\. Received: steps=3",
    ):
        bt.Neumann(steps=3)
    with pytest.raises(
        TypeError, match=r"T1T2 has no argument `x`\. Its arguments are"
    ):
        bt.methods.T1T2(x=3)
    with pytest.raises(
        TypeError, match=r"GaussNewton has no argument `dampening`.*damp"
    ):
        bt.methods.GaussNewton(dampening=0.1)
    with pytest.raises(
        TypeError, match=r"RMAD has no.*fraction_bits, restart, fixed_b"
    ):
        bt.methods.RMAD(3, truncation=2)
    with pytest.raises(TypeError, match=r"Greedy.*`truncation`"):
        bt.methods.Greedy(truncation=1)


def test_variables_and_structures_are_accepted(quadratic):
    w = keras.Variable(quadratic.optimum, dtype="float64")
    h = tf.Variable(quadratic.h)
    found = bt.hypergradient(
        lambda w, h: quadratic.inner(w["w"], h[0]),
        lambda w, h: quadratic.outer(w["w"], h[0]),
        {"w": w},
        [h],
        bt.methods.ExactImplicit(),
    )
    assert distance(found.gradients, [quadratic.hypergradient]) < 1e-8
    assert distance(found.weights, {"w": quadratic.optimum}) == 0


def test_an_inner_loss_without_hyperparameters_is_refused(quadratic):
    inner = lambda w, h: quadratic.inner(w, tf.stop_gradient(h))  # noqa: E731
    with pytest.raises(ValueError, match="does not depend on any hyperparameter"):
        solve(quadratic, bt.methods.T1T2(), inner)


def test_weights_that_are_not_in_the_inner_loss_are_refused(quadratic):
    with pytest.raises(ValueError, match=r"does not depend on weights \[1\].*\(3,\)"):
        bt.hypergradient(
            lambda w, h: quadratic.inner(w[0], h),
            lambda w, h: quadratic.outer(w[0], h),
            [quadratic.optimum, tf.zeros(3)],
            quadratic.h,
            bt.methods.T1T2(),
        )


def test_a_hyperparameter_in_neither_loss_is_named(quadratic):
    with pytest.raises(ValueError, match="hyperparameter number 1 "):
        bt.hypergradient(
            lambda w, h: quadratic.inner(w, h[0]),
            lambda w, h: quadratic.outer(w, h[0]),
            quadratic.optimum,
            [quadratic.h, tf.constant(1.0)],
            bt.methods.T1T2(),
        )


def test_losses_that_are_no_scalars_are_refused(quadratic):
    with pytest.raises(ValueError, match="`outer_loss` must return a scalar"):
        bt.hypergradient(
            quadratic.inner,
            lambda w, h: w,
            quadratic.optimum,
            quadratic.h,
            bt.methods.T1T2(),
        )
    with pytest.raises(ValueError, match="one loss per example"):
        solve(quadratic, bt.methods.EmpiricalFisher())
    with pytest.raises(ValueError, match="ComposedLoss"):
        solve(quadratic, bt.methods.GaussNewton(), quadratic.inner)


def test_a_best_response_method_is_refused(quadratic):
    with pytest.raises(TypeError, match="need a BilevelModel"):
        solve(quadratic, bt.DeltaSTN())


def test_too_large_a_model_is_refused(quadratic):
    with pytest.raises(ValueError, match="6 weights has 36 entries; max_weights=5"):
        solve(quadratic, bt.methods.ExactImplicit(max_weights=5))


@pytest.mark.parametrize(
    ("method", "arguments", "named"),
    [
        (bt.methods.ExactImplicit, {"damping": -1.0}, "damping"),
        (bt.methods.ExactImplicit, {"max_weights": 0}, "max_weights"),
        (bt.ConjugateGradient, {"iterations": 0}, "iterations"),
        (bt.ConjugateGradient, {"tolerance": -1e-3}, "tolerance"),
        (bt.Neumann, {"terms": -1}, "terms"),
        (bt.Neumann, {"learning_rate": 0.0}, "learning_rate"),
        (bt.Neumann, {"power_iterations": 0}, "power_iterations"),
        (bt.methods.EmpiricalFisher, {"damping": float("nan")}, "damping"),
    ],
)
def test_options_out_of_range_are_refused(method, arguments, named):
    with pytest.raises(ValueError, match=f"`{named}` must be"):
        method(**arguments)


@pytest.mark.parametrize(
    "method",
    [
        bt.methods.ExactImplicit(damping=0.5, max_weights=7, train_steps=3),
        bt.ConjugateGradient(4, 1e-3, 0.2, warmup_epochs=2),
        bt.Neumann(7, 0.3, 4),
        bt.methods.T1T2(valid_steps=2),
        bt.methods.EmpiricalFisher(4, 1e-3, 0.2),
        bt.methods.GaussNewton(4, 1e-3, 0.2),
        bt.methods.HOAG(0.5, 0.8, 1e-4, 30, 0.1),
    ],
)
def test_config_round_trip(method):
    serialized = keras.saving.serialize_keras_object(method)
    again = keras.saving.deserialize_keras_object(serialized)
    assert type(again) is type(method)
    assert again.get_config() == method.get_config()
