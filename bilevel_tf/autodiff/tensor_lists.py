"""Lists of tensors kept in `TensorArray`s."""

import tensorflow as tf


def empty(like, size):
    """Room for `size` lists of tensors shaped as the list `like`."""
    return [
        tf.TensorArray(x.dtype, size, clear_after_read=False, element_shape=x.shape)
        for x in like
    ]


def written(arrays, index, values):
    """The arrays with a list of tensors at an index; an earlier one is replaced."""
    return [a.write(index, v) for a, v in zip(arrays, values, strict=True)]


def read(arrays, index):
    """The list of tensors at an index."""
    return [a.read(index) for a in arrays]
