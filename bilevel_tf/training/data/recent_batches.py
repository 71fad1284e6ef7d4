"""The last training batches, from which outer steps draw if `x` is not arrays."""

import collections
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class RecentBatches:
    """The training batches that the last inner steps have seen.

    A data set or a generator is read by Keras alone, once an epoch: whoever read it a
    second time would call the user's code out of turn. Outer steps that need training
    batches therefore take those that training has just used.

    All that are kept have one shape, so that they can be stacked: the smaller batch at
    the end of an epoch is left out. Batches of former epochs are not kept, so that a
    fit that is resumed at the beginning of an epoch draws as if it had not stopped.

    Args:
        batches: How many batches an outer step needs.
        outer_steps: How many outer steps follow each other in a round. Each of them
            gets other batches, if there are enough.
    """

    def __init__(self, batches: int, outer_steps: int):
        self.batches = batches
        self.outer_steps = outer_steps
        self._kept: collections.deque = collections.deque(
            maxlen=batches + outer_steps - 1
        )
        self._shapes: list | None = None
        self._epoch: int | None = None
        self.specs: list[tf.TensorSpec] = []

    def keep(self, batch: Any, epoch: int) -> None:
        """Keep a batch.

        Args:
            batch: Structure of tensors `[batch, ...]`.
            epoch: Number of the epoch. When it changes, former batches are dropped.
        """
        if epoch != self._epoch:
            self._epoch, self._shapes = epoch, None
        shapes = [array.shape for array in keras.tree.flatten(batch)]
        if shapes != self._shapes:
            if self._shapes is not None and shapes[0][0] < self._shapes[0][0]:
                return
            self._kept.clear()
            self._shapes = shapes
            self._widen_specs(keras.tree.flatten(batch))
        self._kept.append(batch)

    def _widen_specs(self, arrays):
        """Let the specs admit these arrays, of any number of examples."""
        old = self.specs or [None] * len(arrays)
        self.specs = [_widen(spec, a) for spec, a in zip(old, arrays, strict=True)]

    def feed(self, batches: int, progress: Any) -> tf.data.Dataset:
        """Make an endless data set of the batches at the time when it is read.

        Args:
            batches: How many batches are stacked along a new first axis; at most
                those that the object was made for. If fewer are kept, they are
                repeated.
            progress: The model's counts; `outer_steps` is read.
        """

        def stacks() -> Iterator:
            while True:
                kept = self._select(batches, progress.outer_steps % self.outer_steps)
                # Not `tf.stack`, which of one batch makes no copy: TensorFlow would
                # take its memory for its own, as `own_arrays` says.
                yield keras.tree.map_structure(lambda *each: np.stack(each), *kept)

        specs = [
            tf.TensorSpec((batches, *spec.shape), spec.dtype) for spec in self.specs
        ]
        signature = keras.tree.pack_sequence_as(self._kept[-1], specs)
        # No prefetching: batches must be read when the outer step asks for them.
        return tf.data.Dataset.from_generator(stacks, output_signature=signature)

    def _select(self, batches, skipped):
        """Return the last batches but for those `skipped`, in the order of training."""
        count = len(self._kept)
        first = count - batches - skipped
        return [self._kept[(first + i) % count] for i in range(batches)]


def last_of_stack(stack: Any) -> Any:
    """Return the last batch of a stack of batches."""
    return keras.tree.map_structure(lambda arrays: arrays[-1], stack)


def _widen(spec, array):
    shape = array.shape[1:]
    if spec is not None:
        pairs = zip(spec.shape[1:], shape, strict=True)
        shape = [one if one == other else None for one, other in pairs]
    return tf.TensorSpec((None, *shape), array.dtype)
