"""Approximate solutions of linear systems, and why a solver stopped."""

import numpy as np
import pytest
import tensorflow as tf

from bilevel_tf.autodiff.solution import Solution, Status, choose_status
from bilevel_tf.autodiff.solvers import (
    conjugate_gradient,
    dense_solve,
    neumann_series,
)

INDEFINITE = [[1.0, 0.0], [0.0, -2.0]]
SINGULAR = [[1.0, 1.0], [1.0, 1.0]]
REGULAR = [[3.0, 1.0], [1.0, 2.0]]
NAN, INFINITY = float("nan"), float("inf")


def system(size=6):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(size, size))
    matrix = tf.constant(root @ root.T + np.eye(size))
    b = tf.constant(rng.normal(size=size))
    return product_of(matrix), [b], np.linalg.solve(matrix, b)


def product_of(matrix):
    return lambda vector: [tf.linalg.matvec(matrix, vector[0])]


def by_conjugate_gradient(matrix, b, iterations=10):
    return conjugate_gradient(product_of(matrix), b, iterations, 1e-6)


def by_looped_conjugate_gradient(matrix, b):
    return by_conjugate_gradient(matrix, b, 100)


def by_neumann_series(matrix, b):
    rate = tf.constant(0.4, matrix.dtype)
    return neumann_series(product_of(matrix), b, 40, rate)


def by_long_neumann_series(matrix, b):
    rate = tf.constant(0.4, matrix.dtype)
    return neumann_series(product_of(matrix), b, 20, rate)


SOLVERS = [
    by_conjugate_gradient,
    by_looped_conjugate_gradient,
    by_neumann_series,
    by_long_neumann_series,
    dense_solve,
]
each_solver = pytest.mark.parametrize("solve", SOLVERS)


def solved(solve, matrix, b, mode="eager", dtype="float64"):
    run = lambda m, v: solve(m, [v])  # noqa: E731
    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla", autograph=False)
    return run(tf.constant(matrix, dtype), tf.constant(b, dtype))


def status(found):
    return Status(int(found.status))


def test_a_near_start_saves_iterations():
    product, b, exact = system()
    near = [tf.constant(exact + 1e-6)]
    cold = conjugate_gradient(product, b, 20, 1e-4)
    warm = conjugate_gradient(product, b, 20, 1e-4, near)
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(warm.x[0], exact, rtol=1e-2)


@pytest.mark.parametrize("factor", [1e6, -1e6, np.inf, np.nan])
def test_a_start_worse_than_none_is_dropped(factor):
    product, b, exact = system()
    start = [tf.constant(factor * exact)]
    cold = conjugate_gradient(product, b, 3, 0.0)
    warm = conjugate_gradient(product, b, 3, 0.0, start)
    np.testing.assert_array_equal(warm.x[0], cold.x[0])
    assert warm.residual == cold.residual


def test_an_exact_start_takes_no_iteration():
    product, b, exact = system()
    found = conjugate_gradient(product, b, 20, 1e-8, [tf.constant(exact)])
    assert found.iterations == 0
    assert found.converged


@each_solver
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_a_solution_that_converged(solve, mode):
    found = solved(solve, REGULAR, [1.0, 2.0], mode)
    assert found.status.dtype == tf.int32
    assert status(found) == Status.CONVERGED
    assert found.converged
    np.testing.assert_allclose(found.x[0], [0.0, 1.0], atol=2e-2)


# What a solver is not made for.


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("solve", [by_conjugate_gradient, by_looped_conjugate_gradient])
def test_an_indefinite_matrix_ends_conjugate_gradients(solve, mode):
    found = solved(solve, INDEFINITE, [1.0, 0.5], mode)
    assert status(found) == Status.NOT_POSITIVE_DEFINITE
    assert not found.converged
    # One step, of length bᵀb / bᵀHb, and the direction that showed it.
    assert int(found.iterations) == 2
    np.testing.assert_allclose(found.x[0], [2.5, 1.25])
    residual = np.linalg.norm([1 - 2.5, 0.5 + 2 * 1.25]) / np.linalg.norm([1, 0.5])
    np.testing.assert_allclose(found.residual, residual)
    first = solved(solve, INDEFINITE, [0.0, 1.0], mode)
    assert status(first) == Status.NOT_POSITIVE_DEFINITE
    np.testing.assert_array_equal(first.x[0], [0.0, 0.0])
    assert first.residual == 1


def test_an_indefinite_matrix_makes_the_series_diverge():
    found = solved(by_neumann_series, INDEFINITE, [1.0, 0.5])
    assert status(found) == Status.DIVERGED
    assert found.residual > 1


def test_an_indefinite_matrix_is_solved_by_decomposition():
    found = solved(dense_solve, INDEFINITE, [1.0, 0.5])
    assert status(found) == Status.CONVERGED
    np.testing.assert_allclose(found.x[0], [1.0, -0.25])


@pytest.mark.parametrize("mode", ["eager", "xla"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("matrix", [SINGULAR, np.zeros((2, 2))])
@pytest.mark.parametrize(
    "solve", [by_conjugate_gradient, by_looped_conjugate_gradient, dense_solve]
)
def test_a_singular_matrix_is_said(solve, matrix, dtype, mode):
    found = solved(solve, matrix, [1.0, 2.0], mode, dtype)
    assert status(found) == Status.SINGULAR


def test_conjugate_gradients_return_the_solution_before_a_singular_direction():
    found = solved(by_conjugate_gradient, SINGULAR, [1.0, 2.0])
    # ‖b − H·x‖ is least if x₀ + x₁ = 1.5; what is left is (−0.5, 0.5).
    np.testing.assert_allclose(found.x[0].numpy().sum(), 5 / 3)
    assert np.abs(found.x[0]).max() < 2


def test_the_series_of_a_singular_matrix_does_not_converge():
    found = solved(by_neumann_series, np.zeros((2, 2)), [1.0, 2.0])
    assert status(found) == Status.DIVERGED
    assert found.residual == 1


@each_solver
@pytest.mark.parametrize("bad", [NAN, INFINITY])
@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_numbers_that_are_not_finite_are_said(solve, bad, mode):
    for matrix, b in (
        (REGULAR, [1.0, bad]),
        (REGULAR, [bad, 0.0]),
        ([[1.0, 0.0], [0.0, bad]], [1.0, 1.0]),
        (np.full((2, 2), bad), [1.0, 2.0]),
    ):
        found = solved(solve, matrix, b, mode)
        assert status(found) == Status.NOT_FINITE
        assert not found.converged


def test_a_matrix_that_is_not_finite_does_not_reach_the_solution():
    # The first direction is (1, 0), and no NaN is in its product.
    product = lambda v: [tf.stack([v[0][0] + v[0][1], v[0][0] / v[0][0] * 0.5])]  # noqa: E731
    b = [tf.constant([1.0, 0.0], tf.float64)]
    good = conjugate_gradient(product, b, 1, 0.0)
    calls = []

    def breaks(v):
        calls.append(1)
        return product(v) if len(calls) == 1 else [v[0] * NAN]

    found = conjugate_gradient(breaks, b, 10, 0.0)
    assert status(found) == Status.NOT_FINITE
    assert int(found.iterations) == 2
    np.testing.assert_array_equal(found.x[0], good.x[0])
    assert found.residual == good.residual


# Right-hand sides.


@each_solver
@pytest.mark.parametrize("matrix", [REGULAR, SINGULAR])
@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_no_right_hand_side_has_the_solution_zero(solve, matrix, mode):
    found = solved(solve, matrix, [0.0, 0.0], mode)
    assert status(found) == Status.CONVERGED
    np.testing.assert_array_equal(found.x[0], [0.0, 0.0])
    assert found.residual == 0


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@each_solver
def test_the_scale_of_the_right_hand_side_does_not_matter(solve, scale):
    """The squares of its entries are 0 or infinite in single precision."""
    b = np.array([1.0, 2.0])
    found = solved(solve, REGULAR, scale * b, dtype="float32")
    plain = solved(solve, REGULAR, b, dtype="float32")
    assert status(found) == Status.CONVERGED
    assert found.iterations == plain.iterations
    np.testing.assert_allclose(found.x[0] / scale, plain.x[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.residual, plain.residual, rtol=1e-4, atol=1e-6)


def test_the_scale_of_a_start_is_that_of_the_right_hand_side():
    product, b, exact = system()
    tiny = 1e-200
    b, start = [tiny * b[0]], [tf.constant(tiny * exact)]
    found = conjugate_gradient(product, b, 20, 1e-8, start)
    assert found.iterations == 0
    np.testing.assert_allclose(found.x[0] / tiny, exact)


@pytest.mark.parametrize("matrix", [0.5, 3.0])
def test_a_scalar_is_solved_in_one_iteration(matrix):
    product = lambda v: [matrix * v[0]]  # noqa: E731
    b = [tf.constant(2.0, tf.float64)]
    found = conjugate_gradient(product, b, 10, 0.0)
    assert status(found) == Status.CONVERGED
    assert found.iterations == 1
    assert found.x[0].shape == ()
    np.testing.assert_allclose(found.x[0], 2 / matrix)
    dense = dense_solve(tf.constant([[matrix]], tf.float64), b)
    assert status(dense) == Status.CONVERGED
    np.testing.assert_allclose(dense.x[0], 2 / matrix)
    series = neumann_series(product, b, 60, tf.constant(0.5, tf.float64))
    np.testing.assert_allclose(series.x[0], 2 / matrix, rtol=1e-6)


def test_empty_tensors_may_be_among_the_weights():
    b = [tf.ones(2, tf.float64), tf.zeros((2, 0), tf.float64), tf.zeros(0, tf.float64)]
    product = lambda v: [2.0 * x for x in v]  # noqa: E731
    for found in (
        conjugate_gradient(product, b, 10, 1e-9, start=b),
        neumann_series(product, b, 5, tf.constant(0.5, tf.float64)),
        dense_solve(2.0 * tf.eye(2, dtype=tf.float64), b),
    ):
        assert status(found) == Status.CONVERGED
        assert [x.shape for x in found.x] == [x.shape for x in b]
        np.testing.assert_allclose(found.x[0], [0.5, 0.5])


# Tolerances.


def test_tolerance_zero_uses_all_iterations():
    product, b, exact = system()
    for iterations in (4, 40):
        found = conjugate_gradient(product, b, iterations, 0.0)
        assert found.iterations == iterations
        assert status(found) == Status.OUT_OF_ITERATIONS
    np.testing.assert_allclose(found.x[0], exact)


def test_few_iterations_run_out():
    product, b, _ = system()
    found = conjugate_gradient(product, b, 2, 1e-9)
    assert status(found) == Status.OUT_OF_ITERATIONS
    assert not found.converged
    assert status(found).usable
    left = b[0] - product(found.x)[0]
    np.testing.assert_allclose(found.residual, tf.norm(left) / tf.norm(b[0]))


def test_no_terms_are_the_right_hand_side():
    _, b, _ = system()
    found = neumann_series(None, b, 0, tf.constant(0.5, tf.float64))
    assert status(found) == Status.CONVERGED
    np.testing.assert_array_equal(found.x[0], 0.5 * b[0])


# Statuses.


@pytest.mark.parametrize("member", Status)
def test_every_status_says_what_happened_and_what_to_do(member):
    sentences = member.explain().split(". ")
    assert len(sentences) == 2
    assert all(len(sentence) > 20 for sentence in sentences)
    assert "\n" not in member.explain()
    assert member.explain().endswith(".")


def test_the_first_case_that_holds_is_the_status():
    yes, no = tf.constant(True), tf.constant(False)
    chosen = choose_status((no, Status.SINGULAR), (yes, Status.DIVERGED), (yes, 4))
    assert int(chosen) == Status.DIVERGED
    assert int(choose_status((no, Status.SINGULAR))) == Status.CONVERGED
    other = choose_status((no, Status.SINGULAR), otherwise=Status.NOT_FINITE)
    assert int(other) == Status.NOT_FINITE


def test_a_solution_goes_through_loops_and_structures():
    @tf.function(jit_compile=True)
    def run():
        zero = tf.constant(0.0)
        found = Solution(
            [zero], tf.constant(0), zero, tf.constant(int(Status.DIVERGED))
        )
        body = lambda found: (found._replace(status=found.status * 0),)  # noqa: E731
        go = lambda found: ~found.converged  # noqa: E731
        return tf.while_loop(go, body, (found,))[0]

    assert run().converged
