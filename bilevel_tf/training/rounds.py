"""When outer steps fall between training steps."""

import contextlib
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
    inner steps run in blocks of gcd(k, T_train), so that the schedule does not depend
    on k.
    """
    method, progress = model.method, model.progress
    inner = model._make_function(model.train_step)
    outer = model._make_function(model.outer_train_step)
    block = math.gcd(model.steps_per_execution, method.train_steps)
    blocks = model.steps_per_execution // block
    logs = hyperparameter_logs(model.hyperparameters)

    def run_outer_steps():
        for _ in range(method.valid_steps):
            with _steps_per_execution(model, 1):
                logs.update(outer(model._outer_iterator))
            progress.outer_steps += 1

    def function(iterator):
        inner_logs = None
        for _ in range(blocks):
            try:
                with _steps_per_execution(model, block):
                    inner_logs = inner(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                if inner_logs is None:
                    raise
                break
            progress.inner_steps += block
            warm = progress.epochs >= method.warmup_epochs
            if warm and progress.inner_steps % method.train_steps == 0:
                run_outer_steps()
        return {**inner_logs, **logs}

    return function


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
