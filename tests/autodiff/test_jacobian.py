"""Products with Jacobians and Gauss-Newton matrices, against the matrices."""

import numpy as np
import tensorflow as tf

from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.jacobian import Jacobian, gauss_newton_product
from bilevel_tf.autodiff.vectors import dot, flatten, unflatten


def draw(seed, *shape):
    return tf.random.stateless_normal(shape, (seed, 0), dtype=tf.float64)


X, Y = draw(0, 5, 3), draw(1, 5, 2)
WEIGHTS = [draw(2, 3, 4), draw(3, 4), draw(4, 4, 2)]
VECTOR = [draw(5, 3, 4), draw(6, 4), draw(7, 4, 2)]


def predict(weights):
    kernel, bias, out = weights
    return tf.tanh(X @ kernel + bias) @ out


def loss(outputs):
    return tf.reduce_mean(tf.math.log(tf.cosh(outputs - Y)))


def matrix():
    with tf.GradientTape() as tape:
        tape.watch(WEIGHTS)
        outputs = predict(WEIGHTS)
    blocks = tape.jacobian(outputs, WEIGHTS)
    return tf.concat([tf.reshape(block, [10, -1]) for block in blocks], 1)


def test_products_with_the_jacobian():
    jacobian = Jacobian(predict, WEIGHTS)
    np.testing.assert_allclose(jacobian.value, predict(WEIGHTS))
    cotangent = draw(8, 5, 2)
    expected = tf.linalg.matvec(matrix(), flatten(VECTOR))
    found = jacobian.product(VECTOR)
    np.testing.assert_allclose(tf.reshape(found, [-1]), expected, atol=1e-13)
    pulled = jacobian.transposed_product(cotangent)
    np.testing.assert_allclose(dot(pulled, VECTOR), tf.reduce_sum(cotangent * found))


def test_gauss_newton_product():
    outputs = tf.Variable(predict(WEIGHTS))
    with tf.GradientTape() as outer, tf.GradientTape() as inner:
        value = loss(outputs)
    with outer:
        slope = inner.gradient(value, outputs)
    curvature = tf.reshape(outer.jacobian(slope, outputs), [10, 10])
    expected = tf.transpose(matrix()) @ curvature @ matrix()
    found = gauss_newton_product(predict, loss, WEIGHTS)(VECTOR)
    expected = tf.linalg.matvec(expected, flatten(VECTOR))
    np.testing.assert_allclose(flatten(found), expected, atol=1e-13)


def test_hessian_products():
    def with_decay(weights, hyperparameters):
        decay = sum(tf.reduce_sum(w**2) for w in weights)
        return loss(predict(weights)) + hyperparameters[0] * decay

    h = [tf.constant(0.3, tf.float64)]
    hessian = Hessian(with_decay, WEIGHTS, h)
    dense = hessian.dense()
    np.testing.assert_allclose(dense, tf.transpose(dense), atol=1e-13)
    product = flatten(hessian.product(VECTOR))
    np.testing.assert_allclose(product, tf.linalg.matvec(dense, flatten(VECTOR)))
    (cross,) = hessian.cross_product(VECTOR)
    np.testing.assert_allclose(cross, 2 * dot(WEIGHTS, VECTOR))

    def slope(vector):
        step = unflatten(vector, WEIGHTS)
        moved = [w + d for w, d in zip(WEIGHTS, step, strict=True)]
        return flatten(Hessian(with_decay, moved, h).gradients)

    small = 1e-5 * flatten(VECTOR)
    numeric = (slope(small) - slope(-small)) / 2e-5
    np.testing.assert_allclose(product, numeric, rtol=1e-6, atol=1e-8)
