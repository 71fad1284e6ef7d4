"""How many examples training data have, as far as that can be told."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf import _keras


def count_examples(x: Any, expected: int) -> int | None:
    """Return the number of training examples, or `None` if it is unknown.

    A data set whose last batch is small, or left out, is taken to have the expected
    number if that lies within a batch of it. Otherwise its examples are counted, which
    reads it once. Of one that repeats its examples the number is unknown.

    Args:
        x: Training inputs, as given to `fit`.
        expected: The number that is likely.
    """
    if isinstance(x, tf.data.Dataset):
        batches = 0 if _keras.repeats(x) else int(x.cardinality())
        if batches > 0 and not _is_near(x, batches, expected):
            return int(x.reduce(np.int64(0), lambda n, *batch: n + _size(batch)))
        return expected if batches > 0 else None
    if isinstance(x, keras.utils.PyDataset):
        batches = x.num_batches
        if not batches:
            return None
        if _is_near((x[0],), batches, expected):
            return expected
        return sum(int(_size(x[index])) for index in range(batches))
    shape = getattr(keras.tree.flatten(x)[0], "shape", None)
    return int(shape[0]) if shape else None


def _is_near(dataset, batches, expected):
    size = int(_size(next(iter(dataset))))
    return (batches - 1) * size < expected < (batches + 1) * size


def _size(batch):
    return tf.cast(tf.shape(keras.tree.flatten(batch)[0])[0], tf.int64)
