"""Arithmetic of lists of tensors, each list taken as one vector."""

import tensorflow as tf


def dot(a: list[tf.Tensor], b: list[tf.Tensor]) -> tf.Tensor:
    """Return ⟨a, b⟩, a scalar."""
    return tf.add_n([tf.reduce_sum(x * y) for x, y in zip(a, b, strict=True)])


def norm(a: list[tf.Tensor]) -> tf.Tensor:
    """Return ‖a‖, a scalar."""
    return tf.sqrt(dot(a, a))


def add_scaled(
    a: list[tf.Tensor], factor: tf.Tensor | float, b: list[tf.Tensor]
) -> list[tf.Tensor]:
    """Return a + factor · b for a scalar factor."""
    return [x + _cast(factor, x.dtype) * y for x, y in zip(a, b, strict=True)]


def scaled(factor: tf.Tensor | float, a: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return factor · a for a scalar factor."""
    return [_cast(factor, x.dtype) * x for x in a]


def _cast(factor, dtype):
    # `tf.cast` takes a Python number through single precision.
    return (
        tf.cast(factor, dtype) if tf.is_tensor(factor) else tf.constant(factor, dtype)
    )


def flatten(a: list[tf.Tensor]) -> tf.Tensor:
    """Return one vector `[n]` of all entries."""
    return tf.concat([tf.reshape(x, [-1]) for x in a], 0)


def unflatten(vector: tf.Tensor, like: list[tf.Tensor]) -> list[tf.Tensor]:
    """Cut a vector into a list with the shapes of `like`; the inverse of `flatten`."""
    sizes = [tf.size(x) for x in like]
    parts = tf.split(vector, sizes, num=len(like))
    return [tf.reshape(p, tf.shape(x)) for p, x in zip(parts, like, strict=True)]


def all_finite(a):
    """Whether no entry is NaN or infinite, a boolean scalar."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in a])
