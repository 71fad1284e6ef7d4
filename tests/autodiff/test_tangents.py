"""Tangents that layers state themselves."""

import numpy as np
import pytest
import tensorflow as tf

from bilevel_tf.autodiff.tangents import Tangents, apply_linear

X = tf.constant([[1.0, -2.0]])
TANGENT = tf.constant([[0.5, 3.0]])
KERNEL = tf.constant([[1.0, 2.0], [3.0, 4.0]])


def test_stated_tangent_goes_on_through_what_follows():
    with Tangents(X, TANGENT) as tangents:
        with tangents.paused():
            outputs = tf.square(X)
        assert tangents.of(outputs) is None
        tangents.set_tangent(outputs, KERNEL[:1])
        after = 3.0 * outputs
    np.testing.assert_allclose(tangents.of(after), 3.0 * KERNEL[:1])


def test_unseen_ends_with_an_exception():
    with Tangents(X, TANGENT) as tangents:
        with pytest.raises(KeyError), tangents.paused():
            raise KeyError
        outputs = 2.0 * X
    np.testing.assert_allclose(tangents.of(outputs), 2.0 * TANGENT)


@pytest.mark.parametrize("compiled", [False, True])
def test_linear_map_has_value_tangent_and_gradient(compiled):
    def run():
        with Tangents(X, TANGENT) as tangents, tf.GradientTape() as tape:
            tape.watch(X)
            outputs = apply_linear(lambda x: tf.matmul(x, KERNEL), X, tangents)
        return outputs, tangents.of(outputs), tape.gradient(outputs, X)

    outputs, tangent, gradient = (tf.function(run) if compiled else run)()
    np.testing.assert_allclose(outputs, tf.matmul(X, KERNEL))
    np.testing.assert_allclose(tangent, tf.matmul(TANGENT, KERNEL))
    np.testing.assert_allclose(gradient, tf.reduce_sum(KERNEL, 1)[None])


def test_linear_map_without_tangents():
    np.testing.assert_allclose(apply_linear(lambda x: 2.0 * x, X, None), 2.0 * X)


def test_forward_derivative_has_no_product_with_zeros():
    @tf.function
    def run(x):
        with Tangents(x, TANGENT) as tangents:
            outputs = apply_linear(lambda x: tf.matmul(x, KERNEL), x, tangents)
        return outputs, tangents.of(outputs)

    graph = run.get_concrete_function(X).graph
    assert sum(op.type == "MatMul" for op in graph.get_operations()) == 2
