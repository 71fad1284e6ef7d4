"""Lists of tensors taken as one vector."""

import tensorflow as tf


def dot(a, b):
    """⟨a, b⟩, a scalar."""
    return tf.add_n([tf.reduce_sum(x * y) for x, y in zip(a, b, strict=True)])


def norm(a):
    """‖a‖, a scalar."""
    return tf.sqrt(dot(a, a))


def add_scaled(a, factor, b):
    """a + factor · b; the factor is a scalar."""
    return [x + tf.cast(factor, x.dtype) * y for x, y in zip(a, b, strict=True)]


def scaled(factor, a):
    """factor · a; the factor is a scalar."""
    return [tf.cast(factor, x.dtype) * x for x in a]


def flatten(a):
    """One vector `[n]` of all entries."""
    return tf.concat([tf.reshape(x, [-1]) for x in a], 0)


def unflatten(vector, like):
    """The inverse of `flatten`, with the shapes of the list `like`."""
    sizes = [tf.size(x) for x in like]
    parts = tf.split(vector, sizes, num=len(like))
    return [tf.reshape(p, tf.shape(x)) for p, x in zip(parts, like, strict=True)]


def all_finite(a):
    """Whether no entry is NaN or infinite, a boolean scalar."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in a])
