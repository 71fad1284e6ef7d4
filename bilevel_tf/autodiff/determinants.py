"""Log-determinants of symmetric matrices, in double precision.

Sums of squares over many examples next to prior precisions are worse conditioned than
single precision holds. A matrix that is not finite gives NaN, never an exception.
"""

import tensorflow as tf


def log_determinant(matrix):
    """log |M| of a positive definite `[n, n]`, by Cholesky; NaN of any other."""
    root = tf.linalg.cholesky(tf.cast(matrix, tf.float64))
    return 2.0 * tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))


def log_absolute_determinant(matrix):
    """log |det M| of a regular `[n, n]`, which may be indefinite.

    By QR, since XLA has no LU decomposition, and its eigenvalues are slow.
    """
    _, r = tf.linalg.qr(tf.cast(matrix, tf.float64))
    return tf.reduce_sum(tf.math.log(tf.abs(tf.linalg.diag_part(r))))


def eigenvalues(matrix):
    """Those of a positive semidefinite `[n, n]`; none is below zero by rounding."""
    matrix = tf.cast(matrix, tf.float64)
    finite = tf.reduce_all(tf.math.is_finite(matrix))
    safe = tf.where(finite, matrix, tf.zeros_like(matrix))
    values = tf.maximum(tf.linalg.eigvalsh(safe), 0.0)
    return tf.where(finite, values, tf.constant(float("nan"), tf.float64))
