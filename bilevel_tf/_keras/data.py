"""Private parts of tf.data: what a data set is made of."""

import tensorflow as tf
from tensorflow.python.data.ops.cache_op import CacheDataset
from tensorflow.python.data.ops.repeat_op import _RepeatDataset


def find_file_caches(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """Return the steps of a data set's pipeline that cache elements in a file.

    Such a file is complete after one pass. Until then nobody else may read the step.
    """
    found = [each for source in dataset._inputs() for each in find_file_caches(source)]
    if isinstance(dataset, CacheDataset) and dataset._filename.numpy():
        found.append(dataset)
    return found


def repeats(dataset: tf.data.Dataset) -> bool:
    """Whether a step of a data set's pipeline repeats what comes before it."""
    return isinstance(dataset, _RepeatDataset) or any(map(repeats, dataset._inputs()))
