"""Ways to draw what a layer with random weights computes in a training pass.

Each takes the layer, its inputs and the `tfd.Normal`s of kernel and bias (`None`
without a bias), and returns the layer's outputs before the activation and the weights
that it drew, or `None` where it draws none.
"""

import tensorflow as tf

from bilevel_tf import _random


def shared(layer, inputs, kernel, bias):
    """One draw of the weights for all examples of the batch."""
    drawn = [draw(normal, layer.seed_generator) for normal in (kernel, bias)]
    return layer.affine(inputs, *drawn), drawn


def local(layer, inputs, kernel, bias):
    """A draw of every output from its own normal.

    For one output per weight and example it is the distribution that a draw of the
    weights would give it, independent between examples. Its mean is x·μ, its variance
    x²·σ².

    Reference:
        Kingma, Salimans & Welling, "Variational dropout and the local
        reparameterization trick", 2015.
    """
    means = layer.affine(inputs, kernel.loc, None if bias is None else bias.loc)
    # Squares would leave the range of half precision.
    squares = tf.square(tf.cast(inputs, kernel.dtype))
    variances = [None if q is None else tf.square(q.scale) for q in (kernel, bias)]
    variance = layer.affine(squares, *variances)
    # Inputs that are all zero have none, where the root has no derivative.
    variance = tf.maximum(variance, variance.dtype.as_numpy_dtype(_TINY))
    noise = _random.quick_normal(tf.shape(means), variance.dtype, layer.seed_generator)
    return means + tf.cast(scaled(variance, noise), means.dtype), None


@tf.custom_gradient
def scaled(variance, noise):
    """√variance ⊙ noise; the noise itself is not differentiated.

    The derivative is the product over twice the variance. It has no use for the noise,
    which XLA would otherwise compute again in the backward pass.
    """
    product = tf.sqrt(variance) * noise

    def gradient(upstream):
        return 0.5 * upstream * product / variance, None

    return product, gradient


def flipout(layer, inputs, kernel, bias):
    """One draw for the batch, with signs of its own for every example.

    Example i has the weights μ + (s_i r_iᵀ) ⊙ ΔW with signs s_i of the inputs and r_i
    of the outputs: distributed as those of any draw, and uncorrelated between examples.

    Reference:
        Wen et al., "Flipout: efficient pseudo-independent weight perturbations on
        mini-batches", 2018.
    """
    means = layer.affine(inputs, kernel.loc, None if bias is None else bias.loc)
    noise = [_noise(normal, layer.seed_generator) for normal in (kernel, bias)]
    flipped = inputs * _signs(layer, inputs)
    # r_i flips the bias, too.
    perturbation = layer.affine(flipped, *noise) * _signs(layer, means)
    drawn = [q and q.loc + n for q, n in zip((kernel, bias), noise, strict=True)]
    return means + perturbation, drawn


ESTIMATORS = {"shared": shared, "local": local, "flipout": flipout}
_TINY = 1e-30


def draw(normal, generator):
    """w ~ q; `None` of `None`."""
    return normal and normal.loc + _noise(normal, generator)


def _noise(normal, generator):
    if normal is None:
        return None
    shape = normal.loc.shape
    return normal.scale * _random.quick_normal(shape, normal.dtype, generator)


def _signs(layer, tensor):
    """±1 for every example and channel, which broadcast over `tensor`."""
    shape = [1] * tensor.shape.rank
    shape[0], shape[layer.channel_axis] = (
        tf.shape(tensor)[0],
        tensor.shape[layer.channel_axis],
    )
    return _random.signs(shape, tensor.dtype, layer.seed_generator)
