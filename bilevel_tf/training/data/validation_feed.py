"""Endless batches for the outer steps."""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.methods.method import Method
from bilevel_tf.training.data.py_datasets import (
    find_signature,
    first_batches,
    read_passes,
    runs_in_one_thread,
    without_none,
)
from bilevel_tf.training.data.recent_batches import RecentBatches, last_of_stack

# Fixed, because the feed of outer steps is not autotuned.
BATCHES_AHEAD = 2
PARALLEL_CALLS = 2


class OuterFeed:
    """What outer steps draw from.

    What a user's data must be asked for beforehand is read when the object is made.

    Args:
        judged: The validation data, if the objective is taken on these, or `None`: it
            is taken on the training data.
        training: Tuple of the training arrays, or `x` if it is no array.
        sizes: Sizes of the batches that `judged` and `training` are cut into, if they
            are arrays.
        method: The method, whose `inner_batches` says how many training batches an
            outer step needs, and whose `fixed_batches` whether these are always the
            same.
        steps: How many batches of `judged` are used, from its first. Defaults to
            `None`: all.
        recent: The last training batches, if outer steps draw training batches and
            `training` is no arrays.
        progress: The counts of the model, if there are `recent` batches.

    Raises:
        TypeError: If batches are fixed and the training data can be read only once.

    Call arguments:
        start: Number of outer steps taken before.

    Returns:
        A call returns an endless `tf.data.Dataset` of tuples of one batch to judge on
        and, if `inner_batches` is not 0, that many training batches, stacked along a
        new first axis.
    """

    def __init__(
        self,
        judged: Any,
        training: Any,
        sizes: tuple[int, int],
        method: Method,
        steps: int | None = None,
        recent: RecentBatches | None = None,
        progress: Any = None,
    ):
        self.recent: Any = recent
        self._progress = progress
        self._count = method.inner_batches
        self._fixed = None
        if self._count and method.fixed_batches:
            self._fixed = _stack_first_batches(training, sizes[1], self._count)
        self._training = None
        draws = judged is None or (self._count and self._fixed is None)
        if draws and recent is None:
            self._training = Endless(training, sizes[1])
        self._judged = self._training
        if judged is not None:
            self._judged = Endless(judged, sizes[0], steps)

    def __call__(self, start: int) -> tf.data.Dataset:
        feeds = [self._feed_judged(start)]
        if self._count:
            feeds.append(self._feed_training(start))
        return _switch_autotuning_off(tf.data.Dataset.zip(tuple(feeds)))

    def find_judged_spec(self) -> Any:
        """Return the `tf.TensorSpec`s of a batch to judge on.

        They are `None` for the batches of the training pass, before it begins.
        """
        return None if self._judged is None else self._judged(0).element_spec

    def _feed_judged(self, start):
        if self._judged is None:
            stacks = self.recent.feed(1, self._progress)
            return stacks.map(lambda *stack: last_of_stack(stack))
        return self._judged(start)

    def _feed_training(self, start):
        if self._fixed is not None:
            return tf.data.Dataset.from_tensors(self._fixed).repeat()
        if self._training is None:
            return self.recent.feed(self._count, self._progress)
        return self._training(start * self._count).batch(self._count)


def _switch_autotuning_off(feed):
    """Let tf.data read the feed as it is, without a thread that tunes it.

    The feed never ends, so that this thread would run until the feed's iterator is
    deleted. It can miss that, and then holds up Python for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return feed.with_options(options)


class Endless:
    """Endless batches of the user's data.

    Batches of arrays may begin in one pass over the data and end in the next, so that
    all have the same size. Every pass has an order of its own, which depends only on
    the number of the pass. So has every pass over a `PyDataset`, whose batches are read
    when they are asked for, and not before unless parallel workers are allowed. A
    `tf.data.Dataset` is repeated as it is.

    Args:
        data: Tuple of arrays, `tf.data.Dataset` or `PyDataset`.
        batch_size: Size of the batches that arrays are cut into.
        steps: How many batches are used, from the first. Defaults to `None`: all.

    Call arguments:
        start: Number of batches drawn before; the data go on from there.

    Returns:
        A call returns an endless `tf.data.Dataset`.
    """

    def __init__(self, data: Any, batch_size: int, steps: int | None = None):
        self._data = data
        self._batch_size = batch_size
        self._steps = steps
        self._signature = None
        if isinstance(data, keras.utils.PyDataset):
            # Two batches, as Keras does, to see which axes vary.
            self._signature = find_signature(first_batches(data, 2))
        if isinstance(data, tf.data.Dataset):
            # The evaluation could not read a file that outer steps have half written.
            for cache in _keras.find_file_caches(data):
                cache.reduce(0, lambda count, *element: count + 1)

    def __call__(self, start: int) -> tf.data.Dataset:
        data, steps = self._data, self._steps
        if self._signature is not None:
            feed = tf.data.Dataset.from_generator(
                lambda: read_passes(data, start, steps),
                output_signature=self._signature,
            )
            # Reading ahead would be beside the evaluation after an epoch.
            return feed if runs_in_one_thread(data) else feed.prefetch(BATCHES_AHEAD)
        if isinstance(data, tf.data.Dataset):
            feed = _repeat(data if steps is None else data.take(steps), start)
        else:
            if steps is not None:
                data = _cut(data, steps * self._batch_size)
            feed = _shuffle_arrays(data, self._batch_size, start)
        return feed.prefetch(BATCHES_AHEAD)


def _repeat(data, start):
    """Repeat a data set from the batch after the first `start`."""
    count = int(data.cardinality())
    if start and count == tf.data.UNKNOWN_CARDINALITY:
        count = int(data.reduce(np.int64(0), lambda total, *batch: total + 1))
    skipped = start % count if count > 0 else start
    if not skipped:
        return data.repeat()
    return data.skip(skipped).concatenate(data.repeat())


def _cut(data, most):
    """Return the first examples of arrays."""
    return keras.tree.map_structure(lambda array: array[:most], without_none(data))


def _shuffle_arrays(data, batch_size, start):
    data = keras.tree.map_structure(tf.convert_to_tensor, without_none(data))
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


def _stack_first_batches(data, batch_size, count):
    """Stack the first batches of the data; smaller ones, as the last, are left out."""
    source: Iterator
    if isinstance(data, tuple):
        source = iter(Endless(data, batch_size)(0))
    elif isinstance(data, keras.utils.PyDataset):
        source = itertools.cycle(first_batches(data, count + 1))
    elif isinstance(data, tf.data.Dataset):
        source = iter(data.repeat())
    else:
        raise TypeError(
            "`fixed_batches=True` needs data that can be read again: `x` must be "
            "arrays, a tf.data.Dataset or a keras.utils.PyDataset. "
            f"Received: x of type {type(data).__name__}"
        )
    batches = (without_none(batch) for batch in source)
    first = next(batches)
    size = len(keras.tree.flatten(first)[0])
    whole = (b for b in batches if len(keras.tree.flatten(b)[0]) == size)
    stack = [first, *itertools.islice(whole, count - 1)]
    return keras.tree.map_structure(lambda *each: tf.stack(each), *stack)
