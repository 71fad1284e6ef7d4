"""Endless batches for the outer steps."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.methods.method import Method

# Fixed, because the feed of outer steps is not autotuned.
BATCHES_AHEAD = 2
PARALLEL_CALLS = 2


def split_validation(
    training_data: tuple, validation_data: Any, validation_split: float
) -> tuple[tuple, Any]:
    """Apply `validation_split`, unless there are validation data.

    Args:
        training_data: x, y and sample weights.
        validation_data: As given to `fit`.
        validation_split: Share of the training arrays, from their end, or 0.

    Returns:
        Training data and validation data.

    Raises:
        ValueError: If the share is not between 0 and 1, or the data are not arrays.
    """
    if validation_data is None and validation_split:
        return _split(training_data, validation_split)
    return training_data, validation_data


def check_validation(validation_data: Any) -> Any:
    """Return the validation data if there are any.

    Raises:
        ValueError: If there are none, or they are empty.
        TypeError: If they are of a kind that `fit` does not take.
    """
    if validation_data is None:
        raise ValueError(
            "A BilevelModel tunes its hyperparameters on validation data: pass "
            "`validation_data=(x_valid, y_valid)` or `validation_split=0.15` to fit, "
            "or, if another tool calls it, compile with "
            "bilevel_tf.objectives.ValidationLoss(validation_split=0.15), "
            "or compile it with an objective that is judged on the training data. "
            "Received: validation_data=None"
        )
    _check_kind(validation_data)
    if _is_empty(validation_data):
        raise ValueError(
            "`validation_data` is empty: it has no examples. Received: "
            f"{type(validation_data).__name__}"
        )
    return validation_data


def outer_feed(
    outer_data: Any, training_data: tuple, batch_size: int, start: int, method: Method
) -> tf.data.Dataset:
    """Make the data set that outer steps draw from.

    Args:
        outer_data: The data that the objective is taken on: validation data, as given
            to `fit`, or `training_data` itself.
        training_data: x, y and sample weights, as given to `fit`.
        batch_size: Size of the batches that arrays are cut into.
        start: Number of outer steps taken before.
        method: The method, whose `inner_batches` says how many training batches an
            outer step needs, and whose `fixed_batches` whether these are always the
            same.

    Returns:
        An endless `tf.data.Dataset` of tuples of one batch to judge on and, if
        `inner_batches` is not 0, that many training batches, stacked along a new first
        axis.

    Raises:
        TypeError: If training batches are needed and `fit` got a generator, which
            can be read only once.
    """
    if outer_data is training_data:
        outer_data = _readable_again(training_data)
    outer = endless(outer_data, batch_size, start)
    inner_batches = method.inner_batches
    if not inner_batches:
        return _switch_autotuning_off(tf.data.Dataset.zip((outer,)))
    data = _readable_again(training_data)
    if data is training_data:
        first = 0 if method.fixed_batches else start * inner_batches
        training = endless(data, batch_size, first)
    else:
        training = _make_batches_equal(endless(data, batch_size, start), data)
    training = training.batch(inner_batches)
    if method.fixed_batches:
        training = training.take(1).cache().repeat()
    return _switch_autotuning_off(tf.data.Dataset.zip((outer, training)))


def _switch_autotuning_off(feed):
    """Let tf.data read the feed as it is, without a thread that tunes it.

    The feed never ends, so that this thread would run until the feed's iterator is
    deleted. It can miss that, and then holds up Python for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return feed.with_options(options)


def _readable_again(training_data):
    """Return `x` if it is a data set, or the tuple of arrays."""
    x = training_data[0]
    if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
        return x
    if hasattr(x, "shape") or isinstance(x, (list, tuple, dict)):
        return training_data
    raise TypeError(
        "Outer steps draw training batches of their own, so that `x` must be arrays, a "
        "tf.data.Dataset or a keras.utils.PyDataset. "
        f"Received: x of type {type(x).__name__}"
    )


def _make_batches_equal(feed, dataset):
    """Cut a feed into batches of the size of the data set's first, to be stacked."""
    first = dataset[0] if isinstance(dataset, keras.utils.PyDataset) else None
    first = first if first is not None else next(iter(dataset))
    size = len(keras.tree.flatten(first)[0])
    return feed.rebatch(size, drop_remainder=True)


def endless(data: Any, batch_size: int, start: int) -> tf.data.Dataset:
    """Make an endless `tf.data.Dataset` of batches.

    Batches of arrays may begin in one pass over the data and end in the next, so that
    all have the same size. Every pass has an order of its own, which depends only on
    the number of the pass.

    Args:
        data: Tuple of arrays, `tf.data.Dataset` or `PyDataset`.
        batch_size: Size of the batches that arrays are cut into.
        start: Number of batches drawn before; arrays go on from there.
    """
    if isinstance(data, tf.data.Dataset):
        feed = data.repeat()
    elif isinstance(data, keras.utils.PyDataset):
        feed = _feed_py_dataset(data)
    else:
        feed = _feed_arrays(tuple(data), batch_size, start)
    return feed.prefetch(BATCHES_AHEAD)


def _feed_arrays(data, batch_size, start):
    data = keras.tree.map_structure(tf.convert_to_tensor, _drop_none(data))
    count = keras.tree.flatten(data)[0].shape[0]

    def batch(number):
        position = number * batch_size + tf.range(batch_size, dtype=tf.int64)
        passes = tf.cast(position // count, tf.int32)
        seed = tf.stack([passes, passes * 0, passes * 0 + 1], -1)
        # The public `index_shuffle` takes one seed; the op takes one per index.
        order = tf.raw_ops.RandomIndexShuffle(
            index=tf.cast(position % count, tf.int32),
            seed=seed,
            max_index=tf.constant(count - 1, tf.int32),
        )
        return keras.tree.map_structure(lambda array: tf.gather(array, order), data)

    # Not `counter`, whose function TensorFlow keeps as long as the process lives.
    numbers = tf.data.Dataset.range(start, tf.int64.max)
    return numbers.map(batch, num_parallel_calls=PARALLEL_CALLS)


def _feed_py_dataset(dataset):
    def batches():
        while True:
            for index in np.random.permutation(dataset.num_batches):
                yield _convert_to_arrays(dataset[int(index)])
            dataset.on_epoch_end()

    def spec(array):
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    signature = keras.tree.map_structure(spec, _convert_to_arrays(dataset[0]))
    return tf.data.Dataset.from_generator(batches, output_signature=signature)


def _convert_to_arrays(batch):
    return keras.tree.map_structure(np.asarray, _drop_none(tuple(batch)))


def _drop_none(data):
    return tuple(_replace_lists(part) for part in data if part is not None)


def _replace_lists(part):
    """Put tuples in place of lists, which tf.data would stack."""
    if isinstance(part, (list, tuple)):
        return tuple(_replace_lists(each) for each in part)
    if isinstance(part, dict):
        return {key: _replace_lists(each) for key, each in part.items()}
    return part


def _check_kind(validation_data):
    kinds = (tuple, list, tf.data.Dataset, keras.utils.PyDataset)
    if not isinstance(validation_data, kinds):
        raise TypeError(
            "`validation_data` must be a tuple of arrays, a tf.data.Dataset or a "
            f"keras.utils.PyDataset. Received: {type(validation_data).__name__}"
        )


def _is_empty(validation_data):
    if isinstance(validation_data, tf.data.Dataset):
        count = int(validation_data.cardinality())
        if count == tf.data.UNKNOWN_CARDINALITY:
            return next(iter(validation_data), None) is None
        return count == 0
    if isinstance(validation_data, keras.utils.PyDataset):
        return validation_data.num_batches == 0
    arrays = keras.tree.flatten(_drop_none(tuple(validation_data)))
    return min((len(array) for array in arrays), default=0) == 0


def _split(training_data, share):
    if not 0 < share < 1:
        raise ValueError(
            "`validation_split` must be between 0 and 1. "
            f"Received: validation_split={share}"
        )
    arrays = [a for a in keras.tree.flatten(training_data) if a is not None]
    if not all(hasattr(array, "shape") for array in arrays):
        raise ValueError(
            "`validation_split` works on arrays only. Pass `validation_data`. "
            f"Received: validation_split={share}, and data that are not arrays"
        )
    first = int(len(arrays[0]) * (1.0 - share))

    def cut(part):
        return keras.tree.map_structure(
            lambda array: None if array is None else array[part], training_data
        )

    return cut(slice(None, first)), cut(slice(first, None))
