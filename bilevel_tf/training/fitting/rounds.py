"""When outer steps fall between training steps."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.training.data.py_datasets import without_none
from bilevel_tf.training.data.recent_batches import RecentBatches
from bilevel_tf.training.fitting.fit_logs import name_values
from bilevel_tf.training.fitting.outer_steps import make_outer_function


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
        feed: Function of a number n that returns an endless data set of tuples of
            batches. Its first element is for the outer step after n others.
        logs: Dict of scalars that the last outer step logged.
        recent: The last training batches, if outer steps draw from them, or `None`.
    """

    feed: Callable[[int], Iterable]
    logs: dict
    recent: RecentBatches | None = None

    def __post_init__(self):
        self._made_for: Any = None
        self._iterator: Iterator | None = None
        self._data: Iterable | None = None

    def iterator_at(self, outer_steps: int) -> Iterator:
        """Return the iterator whose next element is for this outer step.

        A callback may load a checkpoint, so that the count of outer steps is another
        than it was. The iterator is then made anew.

        Args:
            outer_steps: Number of outer steps taken before.
        """
        specs = None if self.recent is None else self.recent.specs
        if self._iterator is None or self._made_for != (outer_steps, specs):
            self.release()
            self._data = data = self.feed(outer_steps)
            self._iterator = iter(data)
        self._made_for = outer_steps + 1, specs
        return self._iterator

    def release(self) -> None:
        """Let go of the data.

        The iterator goes first: as long as it lives it may call what the data set has.
        """
        self._iterator = None
        self._data = None


def make_train_function(model: keras.Model) -> Callable:
    """Make the function that `fit` calls, which runs rounds of inner and outer steps.

    Inner and outer step are two functions, called in turn from Python: an optimizer
    step may not stand in control flow in a replica. With `steps_per_execution` = k,
    inner steps run in blocks of gcd(k, T_train), and one by one if a block would run
    past the next outer step, so that the schedule does not depend on k.

    Args:
        model: The compiled `BilevelModel`. If its `outer` is `None`, there are no outer
            steps.

    Returns:
        A function of the iterator over training data that returns logs.
    """
    method, progress = model.method, model.progress
    inner = InnerSteps(model, _choose_block(model))
    outer = make_outer_function(model)

    def run_outer_steps():
        for _ in range(method.valid_steps):
            with _set_steps_per_execution(model, 1):
                iterator = model.outer.iterator_at(progress.outer_steps)
                logs = dict(outer(iterator))
            stacked = logs.pop("hyperparameters")
            model.outer.logs = {**name_values(model.hyperparameters, stacked), **logs}
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
            due = progress.inner_steps % method.train_steps == 0
            if due and warm and model.outer is not None:
                run_outer_steps()
            if taken < asked:
                break
        return {**logs, **(model.outer.logs if model.outer else {})}

    return function


def _choose_block(model):
    """Return how many inner steps run in one call."""
    method, replicas = model.method, model.distribute_strategy.num_replicas_in_sync
    if model.returns_batches and (
        max(method.inner_batches, method.valid_steps, replicas) > 1
    ):
        # A block returns its last batch alone, and none on several replicas.
        return 1
    return math.gcd(model.steps_per_execution, method.train_steps)


class InnerSteps:
    """Inner steps, one at a time or in blocks that count how many they took.

    Args:
        model: The `BilevelModel`.
        block: Number of steps in a block.
    """

    def __init__(self, model: keras.Model, block: int):
        self.block = block
        self._model = model
        # Keras averages what several replicas return.
        several = model.distribute_strategy.num_replicas_in_sync > 1
        self._returns_batch = model.returns_batches and not several
        self._fetches_batch = model.returns_batches and several
        self._single = _keras.make_step_function(model, self._step)
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
            fetches = self._fetches_batch or self._model.steps_per_execution > 1
            batch = next(iterator) if fetches else None
            with _set_steps_per_execution(self._model, 1):
                returned = self._single([batch] if fetches else iterator)
            logs = self._keep_batch(returned)
            if self._fetches_batch:
                self._keep(self._gather(batch))
            return logs, 1
        self._taken.assign(0)
        with _set_steps_per_execution(self._model, steps):
            logs = self._keep_batch(self._several(iterator))
        return logs, int(self._taken)

    def _step_and_count(self, data: Any) -> Any:
        self._taken.assign_add(1)
        return self._step(data)

    def _step(self, data: Any) -> Any:
        """Take a step; return its logs, with the batch if outer steps need that."""
        logs = self._model.train_step(data)
        return (logs, without_none(data)) if self._returns_batch else logs

    def _keep_batch(self, returned: Any) -> dict:
        """Keep the batch that a step returned, if any, and return the logs."""
        if not self._returns_batch:
            return returned
        logs, batch = returned
        self._keep(batch)
        return logs

    def _keep(self, batch):
        outer = self._model.outer
        if outer is not None:
            outer.recent.keep(batch, self._model.progress.epochs)

    def _gather(self, batch):
        """Put the parts of a batch that are on the replicas together."""
        parts = self._model.distribute_strategy.experimental_local_results
        return keras.tree.map_structure(
            lambda values: tf.concat(parts(values), 0), without_none(batch)
        )


@contextlib.contextmanager
def inner_steps_alone(model: keras.Model) -> Iterator[None]:
    """Let the train function take one inner step per call, and no outer steps."""
    outer, model.outer = model.outer, None
    try:
        with _set_steps_per_execution(model, 1):
            yield
    finally:
        model.outer = outer


@contextlib.contextmanager
def _set_steps_per_execution(model, steps):
    given = model.steps_per_execution
    model.steps_per_execution = steps
    try:
        yield
    finally:
        model.steps_per_execution = given
