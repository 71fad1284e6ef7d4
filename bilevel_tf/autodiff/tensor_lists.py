"""Sequences of lists of tensors, one `TensorArray` for each place in the list."""

import tensorflow as tf


def empty(like: list[tf.Tensor], size: tf.Tensor | int) -> list[tf.TensorArray]:
    """Return arrays with room for `size` lists with the shapes of the list `like`."""
    return [
        tf.TensorArray(x.dtype, size, clear_after_read=False, element_shape=x.shape)
        for x in like
    ]


def write(
    arrays: list[tf.TensorArray], index: tf.Tensor | int, values: list[tf.Tensor]
) -> list[tf.TensorArray]:
    """Return the arrays with a list of tensors written at an index.

    A list that is at the index already is replaced.
    """
    return [a.write(index, v) for a, v in zip(arrays, values, strict=True)]


def read(arrays: list[tf.TensorArray], index: tf.Tensor | int) -> list[tf.Tensor]:
    """Return the list of tensors at an index."""
    return [a.read(index) for a in arrays]
