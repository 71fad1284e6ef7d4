"""Log-determinants of Gauss-Newton matrices that are simplified layer by layer."""

import tensorflow as tf

from bilevel_tf.autodiff.determinants import eigenvalues, log_determinant
from bilevel_tf.objectives.laplace.layer_capture import capturable_layers, captured


def diagonal(term, weights, precisions):
    """Return log |H| with the diagonal of the Gauss-Newton matrix in H, a scalar.

    Args:
        term: The `DataTerm`.
        weights: Values of the trained weights.
        precisions: A, tensors shaped as the weights.
    """

    def kernel(record, precision):
        diagonal = tf.reshape(_kernel_diagonal(record), precision.shape)
        return _sum_of_logs(diagonal + precision)

    def bias(record, precision):
        slopes = tf.reduce_sum(record.slopes, 2)
        return _sum_of_logs(tf.reduce_sum(tf.square(slopes), [0, 1]) + precision)

    return _over_layers(term, weights, precisions, kernel, bias)


def kronecker(term, weights, precisions):
    """Return log |H| by Kronecker factors, a scalar; arguments as of `diagonal`.

    The block of a kernel is N E[Σ_t a_t a_tᵀ] ⊗ E[g gᵀ] + A I, where the second mean is
    over positions too. This supposes that a and g are uncorrelated over examples and,
    in a convolution, that g at one position is uncorrelated with g at another. The
    block of a bias has all its entries. Entries between blocks are left out.
    """

    def kernel(record, precision):
        count = tf.cast(tf.shape(record.inputs)[0], record.inputs.dtype)
        positions = tf.cast(tf.shape(record.inputs)[1], record.inputs.dtype)
        of_inputs = tf.einsum("bti,btj->ij", record.inputs, record.inputs) / count
        of_slopes = tf.einsum("cbto,cbtp->op", record.slopes, record.slopes) / positions
        products = eigenvalues(of_inputs)[:, None] * eigenvalues(of_slopes)
        # `check_factor_precisions` has seen to one number for all of the kernel.
        precision = tf.reshape(precision, [-1])[0]
        return _sum_of_logs(products + tf.cast(precision, products.dtype))

    def bias(record, precision):
        slopes = tf.cast(tf.reduce_sum(record.slopes, 2), tf.float64)
        block = tf.einsum("cbo,cbp->op", slopes, slopes)
        return log_determinant(block + tf.linalg.diag(tf.cast(precision, tf.float64)))

    return _over_layers(term, weights, precisions, kernel, bias)


def _over_layers(term, weights, precisions, kernel, bias):
    """Sum the log-determinants that `kernel` and `bias` compute of every block."""
    variables = [id(v) for v in term.network.weights]
    precisions = dict(zip(variables, precisions, strict=True))
    parts = []
    for record in captured(term, weights, capturable_layers(term.network)):
        parts.append(kernel(record, precisions[id(record.kernel)]))
        if record.bias is not None:
            parts.append(bias(record, precisions[id(record.bias)]))
    return tf.add_n(parts)


def _kernel_diagonal(record):
    """Sum (Σ_t a_t g_tᵀ)² over examples and columns, `[in, out]`."""
    inputs, slopes = record.inputs, record.slopes
    if inputs.shape[1] == 1:
        squares = tf.square(inputs[:, 0]), tf.square(slopes[:, :, 0])
        return tf.einsum("bi,cbo->io", *squares)
    # One column at a time: each takes the size of the weights for every example.
    gradients = (
        tf.einsum("bti,bto->bio", inputs, column) for column in tf.unstack(slopes)
    )
    return tf.add_n([tf.reduce_sum(tf.square(g), 0) for g in gradients])


def _sum_of_logs(values):
    return tf.reduce_sum(tf.math.log(tf.cast(values, tf.float64)))
