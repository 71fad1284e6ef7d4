"""When outer steps fall between training steps."""

import contextlib
import dataclasses
import math

import tensorflow as tf


class Progress:
    """How far training has come; counts go on over calls of `fit` and are saved.

    Attributes:
        inner_steps: Training steps taken.
        outer_steps: Validation steps taken.
        epochs: Epochs finished.
    """

    def __init__(self):
        self.inner_steps = 0
        self.outer_steps = 0
        self.epochs = 0


@dataclasses.dataclass
class Outer:
    """What outer steps of one `fit` draw from, and what they last logged."""

    iterator: object
    logs: dict


def hyperparameter_logs(space):
    """Current values as scalars by name; the mean of a vector as `<name>_mean`."""
    logs = {}
    for name, value in space.current().items():
        vector = value.shape.rank > 0
        logs[f"{name}_mean" if vector else name] = (
            tf.reduce_mean(value) if vector else value
        )
    return logs


def train_function(model):
    """A function of the data iterator for `fit`: rounds of inner and outer steps.

    Inner and outer step are two functions, called in turn from Python: an optimizer
    step may not stand in control flow in a replica. With `steps_per_execution` = k,
    inner steps run in blocks of gcd(k, T_train), and one by one where a block would
    run past the next outer step, so that the schedule does not depend on k.
    """
    method, progress = model.method, model.progress
    inner = InnerSteps(model, math.gcd(model.steps_per_execution, method.train_steps))
    outer = model._make_function(model.outer_train_step)

    def run_outer_steps():
        for _ in range(method.valid_steps):
            with _steps_per_execution(model, 1):
                model.outer.logs = outer(model.outer.iterator)
            progress.outer_steps += 1

    def function(iterator):
        logs, left = None, model.steps_per_execution
        while left:
            until_outer = method.train_steps - progress.inner_steps % method.train_steps
            asked = inner.block if inner.block <= min(left, until_outer) else 1
            try:
                logs, taken = inner(iterator, asked)
            except (StopIteration, tf.errors.OutOfRangeError):
                if logs is None:
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
    """Inner steps, singly or in blocks, which count themselves.

    Args:
        model: The `BilevelModel`.
        block: Steps in a block.
    """

    def __init__(self, model, block):
        self.block = block
        self._model = model
        self._single = model._make_function(model.train_step)
        if block > 1:
            with model.distribute_strategy.scope():
                first = tf.VariableAggregation.ONLY_FIRST_REPLICA
                self._taken = tf.Variable(0, dtype=tf.int64, aggregation=first)
            self._several = model._make_function(self._counted_step)

    def __call__(self, iterator, steps):
        """Take 1 or `block` steps, or as many as there are batches left.

        Returns:
            Logs of the last step, and how many steps there were.
        """
        if steps == 1:
            # Fetched first: a step whose data is missing would still advance seeds.
            several = self._model.steps_per_execution > 1
            batches = [next(iterator)] if several else iterator
            with _steps_per_execution(self._model, 1):
                return self._single(batches), 1
        self._taken.assign(0)
        with _steps_per_execution(self._model, steps):
            logs = self._several(iterator)
        return logs, int(self._taken)

    def _counted_step(self, data):
        self._taken.assign_add(1)
        return self._model.train_step(data)


@contextlib.contextmanager
def _steps_per_execution(model, steps):
    given = model.steps_per_execution
    model.steps_per_execution = steps
    try:
        yield
    finally:
        model.steps_per_execution = given


def log_names(space):
    """Names under which `hyperparameter_logs` has the hyperparameters."""
    scales = space.scales.items()
    return [name if scale.shape == () else f"{name}_mean" for name, scale in scales]
