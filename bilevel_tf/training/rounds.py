"""When outer steps fall between training steps."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.training.outer_steps import make_outer_function


class Progress:
    """How far training has come.

    The counts go on over several calls of `fit` and are saved with the model.

    Attributes:
        inner_steps: Number of training steps taken.
        outer_steps: Number of outer steps taken.
        epochs: Number of epochs finished.
    """

    def __init__(self):
        self.inner_steps = 0
        self.outer_steps = 0
        self.epochs = 0


@dataclasses.dataclass
class Outer:
    """What the outer steps of one `fit` need and leave behind.

    Attributes:
        iterator: Endless iterator over tuples of batches.
        logs: Dict of scalars that the last outer step logged.
    """

    iterator: Iterator
    logs: dict


def make_train_function(model: keras.Model) -> Callable:
    """Make the function that `fit` calls, which runs rounds of inner and outer steps.

    Inner and outer step are two functions, called in turn from Python: an optimizer
    step may not stand in control flow in a replica. With `steps_per_execution` = k,
    inner steps run in blocks of gcd(k, T_train), and one by one if a block would run
    past the next outer step, so that the schedule does not depend on k.

    Args:
        model: The compiled `BilevelModel`.

    Returns:
        A function of the iterator over training data that returns logs.
    """
    method, progress = model.method, model.progress
    inner = InnerSteps(model, math.gcd(model.steps_per_execution, method.train_steps))
    outer = make_outer_function(model)

    def run_outer_steps():
        for _ in range(method.valid_steps):
            with _set_steps_per_execution(model, 1):
                model.outer.logs = outer(model.outer.iterator)
            progress.outer_steps += 1

    def function(iterator):
        logs: dict[str, Any] = {}
        steps = left = model.steps_per_execution
        while left:
            until_outer = method.train_steps - progress.inner_steps % method.train_steps
            asked = inner.block if inner.block <= min(left, until_outer) else 1
            try:
                logs, taken = inner(iterator, asked)
            except (StopIteration, tf.errors.OutOfRangeError):
                if left == steps:
                    raise
                break
            left -= asked
            progress.inner_steps += taken
            warm = progress.epochs >= method.warmup_epochs
            if warm and progress.inner_steps % method.train_steps == 0:
                run_outer_steps()
            if taken < asked:
                break
        return {**logs, **model.outer.logs}

    return function


class InnerSteps:
    """Inner steps, one at a time or in blocks that count how many they took.

    Args:
        model: The `BilevelModel`.
        block: Number of steps in a block.
    """

    def __init__(self, model: keras.Model, block: int):
        self.block = block
        self._model = model
        self._single = _keras.make_step_function(model, model.train_step)
        if block > 1:
            with model.distribute_strategy.scope():
                first = tf.VariableAggregation.ONLY_FIRST_REPLICA
                self._taken = tf.Variable(0, dtype=tf.int64, aggregation=first)
            self._several = _keras.make_step_function(model, self._step_and_count)

    def __call__(self, iterator: Iterator, steps: int) -> tuple[dict, int]:
        """Take 1 or `block` steps, or as many as there are batches left.

        Args:
            iterator: Iterator over training batches.
            steps: 1 or `block`.

        Returns:
            The logs of the last step, and the number of steps taken.
        """
        if steps == 1:
            # Fetch the batch first: a step that finds no data would still advance the
            # random seeds.
            several = self._model.steps_per_execution > 1
            batches = [next(iterator)] if several else iterator
            with _set_steps_per_execution(self._model, 1):
                return self._single(batches), 1
        self._taken.assign(0)
        with _set_steps_per_execution(self._model, steps):
            logs = self._several(iterator)
        return logs, int(self._taken)

    def _step_and_count(self, data: Any) -> dict:
        self._taken.assign_add(1)
        return self._model.train_step(data)


@contextlib.contextmanager
def _set_steps_per_execution(model, steps):
    given = model.steps_per_execution
    model.steps_per_execution = steps
    try:
        yield
    finally:
        model.steps_per_execution = given
