"""Approximate solutions of linear systems."""

import numpy as np
import pytest
import tensorflow as tf

from bilevel_tf.autodiff.solvers import conjugate_gradient


def system(size=6):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(size, size))
    matrix = tf.constant(root @ root.T + np.eye(size))
    b = tf.constant(rng.normal(size=size))

    def product(vector):
        return [tf.linalg.matvec(matrix, vector[0])]

    return product, [b], np.linalg.solve(matrix, b)


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
