"""Reverse mode with the states stored."""

import math
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count
from bilevel_tf.autodiff import tensor_lists as states
from bilevel_tf.methods.trajectory.training_run import TrainingRun
from bilevel_tf.methods.trajectory.trajectory import Reverse


@keras.saving.register_keras_serializable("bilevel_tf")
class Unrolled(Reverse[TrainingRun]):
    """Backpropagation through T optimizer steps.

    Args:
        steps: T, at least 1.
        truncation: K, the number of last steps to go back through, at most T. The state
            before them is taken as constant. Near an optimum the error falls
            geometrically with K. Defaults to `None`: all T.
        checkpointed: Store only every √K-th state, and compute the others again from
            these. The numbers are the same; memory holds 2√K instead of K states, and
            the steps are run once more. Defaults to `False`.
        restart: In `fit`, start the run of every outer step from the weights that the
            model had when it was compiled, with fresh slots, and leave the model at the
            end of that run. Defaults to `False`: look ahead from the current weights
            and slots, and do not change them.
        fixed_batches: In `fit`, take the same T training batches, in the same order,
            for all outer steps. Defaults to `False`: take fresh ones.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range. At the call, if there is no
            optimizer, or its steps cannot be differentiated; or if K < T and the start
            is a function of λ, which the way back would not reach.
        TypeError: If there is no argument of that name.
        FloatingPointError: At the call, when running eagerly, if the weights became
            infinite or NaN.

    Reference:
        Domke, "Generic methods for optimization-based modeling", 2012; Shaban et al.,
        "Truncated back-propagation for bilevel optimization", 2019; checkpoints:
        Griewank & Walther, "Revolve", 2000, and Chen et al., 2016.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³.

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.0, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.Unrolled(steps=2),
    ...     optimizer=keras.optimizers.SGD(0.25))
    >>> float(result.gradients)
    -0.25
    """

    def __init__(
        self,
        steps: int,
        truncation: int | None = None,
        checkpointed: bool = False,
        **kwargs: Any,
    ):
        super().__init__(steps, **kwargs)
        self.truncation = truncation
        if truncation is not None and check_count(truncation, "truncation", 1) > steps:
            raise ValueError(
                "`truncation` must be at most `steps`. "
                f"Received: truncation={truncation}, steps={steps}"
            )
        self.checkpointed = bool(checkpointed)
        depth = truncation or steps
        self.first = steps - depth
        self._length = math.isqrt(depth - 1) + 1 if self.checkpointed else 1

    def begin(self, run: TrainingRun) -> Any:
        """The state, and a store for the first one of every segment."""
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

    def advance(
        self, run: TrainingRun, t: tf.Tensor, memory: Any
    ) -> tuple[Any, tf.Tensor]:
        """Store the state and take one step."""
        state, stored = memory
        # All steps before the ones to go back through share the first place.
        place = tf.maximum(self._place(t), 0)
        stored = states.write(stored, place, state)
        state = run.step(t, state)
        return (state, stored), run.finite(state)

    def _place(self, t):
        """Find the place of the state before step t: that of the next segment.

        So each state replaces the last one, until the first of the segment stays.
        """
        return (t - self.first + self._length - 1) // self._length

    def current(self, run: TrainingRun, memory: Any) -> list[tf.Tensor]:
        """The last state."""
        return memory[0]

    def turn(self, run: TrainingRun, memory: Any) -> Any:
        """The stored states, and a store for one segment."""
        state, stored = memory
        return stored, states.empty(state, self._length)

    def recall(
        self, run: TrainingRun, t: tf.Tensor, memory: Any
    ) -> tuple[list[tf.Tensor], Any]:
        """Read the state from the store or its segment, computed at its last step."""
        stored, segment = memory
        place = t - self.first
        if not self.checkpointed:
            return states.read(stored, place), memory
        segment = self._fill_segment(run, place, *memory)
        return states.read(segment, place % self._length), (stored, segment)

    def _fill_segment(self, run, place, stored, segment):
        """Compute the states of a segment up to `place`, once for the way back."""
        begin = place - place % self._length
        full = (place + 1 == self.steps - self.first) | (
            tf.equal((place + 1) % self._length, 0)
        )
        state = states.read(stored, begin // self._length)
        segment = states.write(segment, 0, state)

        def body(i, state, segment):
            state = run.step(self.first + i, state)
            return i + 1, state, states.write(segment, (i + 1) - begin, state)

        start = tf.where(full, begin, place), state, segment
        return tf.while_loop(lambda i, *_: i < place, body, start)[2]

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "truncation": self.truncation,
            "checkpointed": self.checkpointed,
        }
