"""Reverse mode with the states stored."""

import math

import keras
import tensorflow as tf

from bilevel_tf._arguments import count
from bilevel_tf.autodiff import tensor_lists as states
from bilevel_tf.methods.trajectory.trajectory import Reverse


@keras.saving.register_keras_serializable("bilevel_tf")
class Unrolled(Reverse):
    """Backpropagation through T optimizer steps.

    Args:
        steps: T, at least 1.
        truncation: K, how many of the last steps to go back through, at most T: the
            states before are taken as given. Near an optimum the error falls
            geometrically with K. Defaults to `None`: all.
        checkpointed: Store every √K-th state only, and compute the others again from
            these: the same numbers, in memory of 2√K instead of K states, for one more
            run of the steps. Defaults to `False`.
        **kwargs: See `Method`.

    Raises:
        ValueError: If an argument is out of range. At the call, if K < T and the start
            is a function of λ, which the way back would not reach.

    Reference:
        Domke, "Generic methods for optimization-based modeling", 2012; Shaban et al.,
        "Truncated back-propagation for bilevel optimization", 2019; checkpoints:
        Griewank & Walther, "Revolve", 2000, and Chen et al., 2016.
    """

    def __init__(self, steps, truncation=None, checkpointed=False, **kwargs):
        super().__init__(steps, **kwargs)
        self.truncation = truncation
        if truncation is not None and count(truncation, "truncation", 1) > steps:
            raise ValueError(
                "`truncation` must be at most `steps`. "
                f"Received: truncation={truncation}, steps={steps}"
            )
        self.checkpointed = bool(checkpointed)
        depth = truncation or steps
        self.first = steps - depth
        self._length = math.isqrt(depth - 1) + 1 if self.checkpointed else 1

    def begin(self, run):
        """The state, and room for the first one of every segment."""
        if self.first and run.problem.start is not None:
            raise ValueError(
                "With `truncation` below `steps` the way back does not reach the "
                "start, which is a function of the hyperparameters. Leave out "
                "`truncation`, or give the weights as tensors. "
                f"Received: truncation={self.truncation}, steps={self.steps}"
            )
        state = run.start()
        room = 1 + self._place(self.steps - 1)
        return state, states.empty(state, room)

    def advance(self, run, t, memory):
        """One step, from a state that is stored."""
        state, stored = memory
        # All steps before the ones to go back through share the first place.
        place = tf.maximum(self._place(t), 0)
        stored = states.written(stored, place, state)
        state = run.step(t, state)
        return (state, stored), run.finite(state)

    def _place(self, t):
        """Where the state before step t goes: the start of the next segment.

        So each is replaced by the next one until the segment's first has come.
        """
        return (t - self.first + self._length - 1) // self._length

    def current(self, run, memory):
        """The last state."""
        return memory[0]

    def turn(self, run, memory):
        """The stored states, and room for one segment."""
        state, stored = memory
        return stored, states.empty(state, self._length)

    def recall(self, run, t, memory):
        """From the store, or from the segment, which is computed at its last step."""
        stored, segment = memory
        place = t - self.first
        if not self.checkpointed:
            return states.read(stored, place), memory
        segment = self._segment(run, place, *memory)
        return states.read(segment, place % self._length), (stored, segment)

    def _segment(self, run, place, stored, segment):
        """The states of a segment up to `place`; not computed again on the way back."""
        begin = place - place % self._length
        full = (place + 1 == self.steps - self.first) | (
            tf.equal((place + 1) % self._length, 0)
        )
        state = states.read(stored, begin // self._length)
        segment = states.written(segment, 0, state)

        def body(i, state, segment):
            state = run.step(self.first + i, state)
            return i + 1, state, states.written(segment, (i + 1) - begin, state)

        start = tf.where(full, begin, place), state, segment
        return tf.while_loop(lambda i, *_: i < place, body, start)[2]

    def get_config(self):
        return {
            **super().get_config(),
            "truncation": self.truncation,
            "checkpointed": self.checkpointed,
        }
