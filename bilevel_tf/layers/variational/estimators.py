"""Ways to draw what a layer with random weights computes in a training pass.

Each takes the layer, its inputs and the `tfd.Normal`s of its weights, in the order in
which the layer applies them. It returns the layer's outputs before the activation, and
the weights that it drew, or `None` if it draws none. The layer applies one weight that
multiplies, and perhaps an offset.
"""

import tensorflow as tf

from bilevel_tf import _random


def shared(layer, inputs, normals):
    """One draw of the weights for all examples of the batch."""
    drawn = [draw(normal, layer.seed_generator) for normal in normals]
    return layer.affine(inputs, *drawn), drawn


def local(layer, inputs, normals):
    """A draw of every output from its own normal, of mean x·μ and variance x²·σ².

    If a weight enters one output per example, this is the distribution that a draw of
    the weights would give the output, but independent between examples.

    Reference:
        Kingma, Salimans & Welling, "Variational dropout and the local
        reparameterization trick", 2015.
    """
    means = layer.affine(inputs, *(normal.loc for normal in normals))
    # Squares would leave the range of half precision.
    squares = tf.square(tf.cast(inputs, normals[0].dtype))
    variance = layer.affine(squares, *(tf.square(normal.scale) for normal in normals))
    # Inputs that are all zero have no variance, and the root no derivative there.
    variance = tf.maximum(variance, variance.dtype.as_numpy_dtype(_TINY))
    noise = _random.quick_normal(tf.shape(means), variance.dtype, layer.seed_generator)
    return means + tf.cast(scaled(variance, noise), means.dtype), None


@tf.custom_gradient
def scaled(variance, noise):
    """√variance ⊙ noise; the noise itself is not differentiated.

    The derivative is the product over twice the variance. It does not need the noise,
    which XLA would otherwise compute again in the backward pass.
    """
    product = tf.sqrt(variance) * noise

    def gradient(upstream):
        return 0.5 * upstream * product / variance, None

    return product, gradient


def flipout(layer, inputs, normals):
    """One draw for the batch, with signs of its own for every example.

    Example i has the weights μ + (s_i r_iᵀ) ⊙ ΔW with signs s_i of the inputs and r_i
    of the outputs: they are distributed as any draw, and are uncorrelated between
    examples.

    Reference:
        Wen et al., "Flipout: efficient pseudo-independent weight perturbations on
        mini-batches", 2018.
    """
    means = layer.affine(inputs, *(normal.loc for normal in normals))
    noise = [_draw_noise(normal, layer.seed_generator) for normal in normals]
    flipped = inputs * _draw_signs(layer, inputs)
    # r_i flips the bias, too.
    perturbation = layer.affine(flipped, *noise) * _draw_signs(layer, means)
    drawn = [q.loc + n for q, n in zip(normals, noise, strict=True)]
    return means + perturbation, drawn


ESTIMATORS = {"shared": shared, "local": local, "flipout": flipout}
_TINY = 1e-30


def draw(normal, generator):
    """w ~ q."""
    return normal.loc + _draw_noise(normal, generator)


def _draw_noise(normal, generator):
    shape = normal.loc.shape
    return normal.scale * _random.quick_normal(shape, normal.dtype, generator)


def _draw_signs(layer, tensor):
    """±1 for every example and channel, which broadcast over `tensor`."""
    (channels,) = layer.linear_maps()[0].output_axes
    shape = [1] * tensor.shape.rank
    shape[0], shape[channels] = tf.shape(tensor)[0], tensor.shape[channels]
    return _random.signs(shape, tensor.dtype, layer.seed_generator)
