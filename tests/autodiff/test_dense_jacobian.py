"""Dense Jacobians and their derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from bilevel_tf.autodiff.dense_jacobian import dense_jacobian

X = tf.constant(np.random.default_rng(0).normal(size=(4, 3)))
W = tf.constant(np.random.default_rng(1).normal(size=(3, 2)))
B = tf.constant([0.3, -0.1], tf.float64)
H = tf.constant(0.7, tf.float64)
C = np.random.default_rng(2).normal(size=(8, 8))


def outputs(weights, others):
    return others[0] * tf.tanh(X @ weights[0] + weights[1])


def by_tape(point):
    with tf.GradientTape() as tape:
        tape.watch(point[:2])
        value = outputs(point[:2], point[2:])
    blocks = tape.jacobian(value, point[:2])
    return tf.concat([tf.reshape(b, [8, -1]) for b in blocks], 1)


@pytest.mark.parametrize("jit", [None, False, True])
def test_it_is_that_of_the_tape_and_so_is_its_gradient(jit):
    def found(function):
        point = [W, B, H]
        with tf.GradientTape() as tape:
            tape.watch(point)
            matrix = function(point)
            loss = tf.reduce_sum(C * matrix**2)
        return [matrix, *tape.gradient(loss, point)]

    def ours():
        return found(lambda p: dense_jacobian(outputs, p[:2], p[2:]))

    run = ours if jit is None else tf.function(ours, jit_compile=jit, autograph=False)
    for a, b in zip(run(), found(by_tape), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_frozen_variables_are_constants():
    frozen, weight = tf.Variable(2.0), tf.constant(3.0)

    @tf.function
    def slope():
        with tf.GradientTape() as tape:
            tape.watch(weight)
            value = dense_jacobian(lambda w, _: frozen * w[0] ** 2, [weight], [])[0, 0]
        return tape.gradient(value, weight)

    assert slope() == 4.0
