"""How the user's `PyDataset`s and generators are read."""

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# A generator that has not ended by then is taken for one that never does.
MOST_BATCHES = 10_000


class InTurn(keras.utils.PyDataset):
    """A `PyDataset` whose code runs in one thread at a time.

    `fit` reads training data in the background, and outer steps read validation data in
    the meantime. A user's code does not expect that; the two wait for each other. Its
    arrays are copied, as `own_arrays` says.

    Args:
        dataset: The user's `PyDataset`.
        lock: What data sets that are read in turn share. A data set whose code may run
            in parallel has a context that locks nothing.
    """

    def __init__(
        self, dataset: keras.utils.PyDataset, lock: AbstractContextManager[Any]
    ):
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self._dataset = dataset
        self._lock = lock

    @property
    def num_batches(self) -> int | None:
        with self._lock:
            return self._dataset.num_batches

    def __getitem__(self, index: int) -> Any:
        with self._lock:
            return own_arrays(self._dataset[index])

    def on_epoch_begin(self) -> None:
        with self._lock:
            self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        with self._lock:
            self._dataset.on_epoch_end()


class KeptBatches(keras.utils.PyDataset):
    """The batches of a generator, kept in memory.

    Args:
        generator: Generator of batches.
        steps: How many batches are taken, or `None` for all.

    Raises:
        ValueError: If `steps` is `None` and the generator does not end.
    """

    def __init__(self, generator: Iterator, steps: int | None):
        super().__init__()
        most = MOST_BATCHES + 1 if steps is None else steps
        self._batches = list(itertools.islice(generator, most))
        if steps is None and len(self._batches) == most:
            raise ValueError(
                "`validation_data` is a generator that has not ended after "
                f"{MOST_BATCHES} batches. Pass `validation_steps`, the number of "
                "batches to take. Received: validation_steps=None"
            )

    @property
    def num_batches(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._batches[index]


def own_arrays(batch: Any) -> Any:
    """Return a batch of the user's with copies of its arrays.

    `tf.data` takes a NumPy array without copying it, and a strategy cuts it into a part
    for each replica. TensorFlow forgets that the memory of a part is not its own, and
    writes results there: a user whose batch is `x[8:16]` would find `x` changed.
    """
    return keras.tree.map_structure(_copy_array, batch)


def _copy_array(array):
    return np.array(array) if isinstance(array, (np.ndarray, tf.Tensor)) else array


def read_owned(generator: Iterator) -> Iterator:
    """Yield the batches of a user's generator as `own_arrays` returns them."""
    for batch in generator:
        yield own_arrays(batch)


def runs_in_one_thread(dataset: Any) -> bool:
    """Whether this is a `PyDataset` for which no parallel workers are asked."""
    if not isinstance(dataset, keras.utils.PyDataset):
        return False
    return dataset.workers <= 1 and not dataset.use_multiprocessing


def first_batches(dataset: keras.utils.PyDataset, most: int) -> list[tuple]:
    """Return the first batches of a `PyDataset` as arrays, at most so many."""
    count = dataset.num_batches
    count = most if count is None else min(most, count)
    return [as_arrays(dataset[index]) for index in range(count)]


def find_signature(batches: list[tuple]) -> tuple:
    """Return the `tf.TensorSpec`s of batches; axes along which they differ are free."""
    return keras.tree.map_structure(_find_spec, *batches)


def _find_spec(*arrays):
    shapes = zip(*(array.shape[1:] for array in arrays), strict=True)
    shape = [dims[0] if len(set(dims)) == 1 else None for dims in shapes]
    return tf.TensorSpec((None, *shape), arrays[0].dtype)


def read_passes(
    dataset: keras.utils.PyDataset, number: int, steps: int | None
) -> Iterator[tuple]:
    """Yield batches without end, shuffled anew in each pass, when they are asked for.

    The order depends only on the number of the pass. No hook of the data set is called:
    these passes are not epochs.

    Args:
        dataset: The data set. If it has no end, its batches come in their order.
        number: Number of the batch to begin with, counted over all passes.
        steps: How many batches are in a pass, from the first; `None` for all.
    """
    while True:
        count = dataset.num_batches
        if steps is not None:
            count = steps if count is None else min(count, steps)
        if count is None:
            yield as_arrays(dataset[number])
            number += 1
            continue
        # A generator of its own leaves the user's random numbers alone.
        order = np.random.default_rng(number // count).permutation(count)
        for index in order[number % count :]:
            yield as_arrays(dataset[int(index)])
            number += 1


def as_arrays(batch: Any) -> tuple:
    """Return x, y and sample weights of a batch as arrays."""
    return keras.tree.map_structure(np.asarray, without_none(batch))


def without_none(batch: Any) -> tuple:
    """Return the parts of a batch that are there, with tuples in place of lists.

    Args:
        batch: A tuple of x, y and sample weights, of which some may be `None`; or x.
    """
    if isinstance(batch, list):
        batch = tuple(batch)
    parts = batch if isinstance(batch, tuple) else (batch,)
    return tuple(_replace_lists(part) for part in parts if part is not None)


def _replace_lists(part):
    """Put tuples in place of lists, which tf.data would stack."""
    if isinstance(part, (list, tuple)):
        return tuple(_replace_lists(each) for each in part)
    if isinstance(part, dict):
        return {key: _replace_lists(each) for key, each in part.items()}
    return part
