"""Log-determinants and eigenvalues of symmetric matrices, in double precision.

Single precision is too coarse for these matrices: prior precisions stand next to sums
of squares over many examples, so that the matrices are badly conditioned. If a matrix
has entries that are not finite, the result is NaN, and there is no exception.
"""

import tensorflow as tf


def log_determinant(matrix: tf.Tensor) -> tf.Tensor:
    """Return log |M| of a positive definite `[n, n]`, by its Cholesky factor.

    If M is not positive definite, the result is NaN.
    """
    root = tf.linalg.cholesky(tf.cast(matrix, tf.float64))
    return 2.0 * tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))


def log_absolute_determinant(matrix: tf.Tensor) -> tf.Tensor:
    """Return log |det M| of a regular `[n, n]`, which may be indefinite.

    It uses the QR decomposition, since XLA has no LU decomposition and is slow with
    eigenvalues.
    """
    _, r = tf.linalg.qr(tf.cast(matrix, tf.float64))
    return tf.reduce_sum(tf.math.log(tf.abs(tf.linalg.diag_part(r))))


def eigenvalues(matrix: tf.Tensor) -> tf.Tensor:
    """Return the eigenvalues `[n]` of a positive semidefinite `[n, n]`.

    Values that rounding has made negative are returned as 0.
    """
    matrix = tf.cast(matrix, tf.float64)
    finite = tf.reduce_all(tf.math.is_finite(matrix))
    safe = tf.where(finite, matrix, tf.zeros_like(matrix))
    values = tf.maximum(tf.linalg.eigvalsh(safe), 0.0)
    return tf.where(finite, values, tf.constant(float("nan"), tf.float64))
