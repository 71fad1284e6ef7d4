"""Log-determinants of Hessians with all entries."""

import tensorflow as tf

from bilevel_tf.autodiff.dense_jacobian import dense_jacobian
from bilevel_tf.autodiff.determinants import log_absolute_determinant, log_determinant
from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.autodiff.vectors import flatten
from bilevel_tf.objectives.laplace.data_term import DataTerm


def exact(
    term: DataTerm, weights: list[tf.Tensor], precisions: list[tf.Tensor]
) -> tf.Tensor:
    """Return log |det H| with H = −∂² log p(D|w) / ∂w² + A, a scalar.

    Args:
        term: −log p(D|w).
        weights: Values of the trained weights, where H is taken.
        precisions: A, tensors shaped as the weights.
    """

    def slope(weights, hyperparameters):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            value = term.at(hyperparameters).value(weights)
        return flatten(
            dense_gradients(tape, value, weights, unconnected_gradients="zero")
        )

    hessian = dense_jacobian(slope, weights, term.hyperparameters)
    return log_absolute_determinant(hessian + tf.linalg.diag(flatten(precisions)))


def gauss_newton(
    term: DataTerm, weights: list[tf.Tensor], precisions: list[tf.Tensor]
) -> tf.Tensor:
    """Return log |Jᵀ Λ J + A|, a scalar.

    With M = Λ^½ J A^-½ this is log |A| + log |I + M·Mᵀ| or log |A| + log |I + Mᵀ·M|
    (the matrix determinant lemma). The smaller of the two matrices is used if it is
    known to be smaller.

    Args:
        term: −log p(D|w).
        weights: Values of the trained weights, where J and Λ are taken.
        precisions: A, tensors shaped as the weights.
    """
    parameters = term.parameters(weights)
    jacobian = dense_jacobian(
        lambda w, h: term.at(h).parameters(w), weights, term.hyperparameters
    )
    columns = sum(w.shape.num_elements() for w in weights)
    root = term.curvature_root(weights, parameters)
    outputs = parameters.shape[-1]
    jacobian = tf.reshape(jacobian, [-1, outputs, columns])
    scaled = tf.matmul(root, jacobian, transpose_a=True)
    scaled = tf.reshape(tf.cast(scaled, tf.float64), [-1, columns])
    precision = tf.cast(flatten(precisions), tf.float64)
    scaled *= tf.math.rsqrt(precision)
    wide = scaled.shape[0] is not None and scaled.shape[0] < columns
    product = tf.matmul(scaled, scaled, transpose_a=not wide, transpose_b=wide)
    size = scaled.shape[0] if wide else columns
    return tf.reduce_sum(tf.math.log(precision)) + log_determinant(
        product + tf.eye(size, dtype=tf.float64)
    )
