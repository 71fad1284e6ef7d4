"""A row of a comparison that is one fit: a method, or hyperparameters that stay."""

import math
import time
import warnings
from typing import Any

import keras
import numpy as np

from bilevel_tf.methods.method import Method
from bilevel_tf.search.building import build_model, judge_name, recompile
from bilevel_tf.search.comparison.compared_run import ComparedRun, find_test
from bilevel_tf.search.setting import Setting
from bilevel_tf.search.training import Trainer, evaluate_test
from bilevel_tf.training.bilevel_model import BilevelModel


def fit_once(
    row: str, method: Method | None, setting: Setting, seed: int
) -> ComparedRun:
    """Fit a new model once.

    Args:
        row: Name of the row.
        method: The method that tunes, or `None` for none.
        setting: Data, epochs and batch size.
        seed: Seed of weights and training.

    Raises:
        ValueError: If the new model has hyperparameters that are not at their initial
            values.

    Warns:
        RuntimeWarning: If the fit diverges.
    """
    start = time.perf_counter()
    clock = _Clock(start)
    if method is None:
        model, reason = _fit_held(setting, seed, clock)
    else:
        model, reason = _fit_by(method, setting, seed, clock)
    diverged = reason is not None
    if diverged:
        warnings.warn(
            f"The fit of '{row}' with seed {seed} diverged, and counts as the worst. "
            f"{reason}",
            RuntimeWarning,
            stacklevel=4,  # the call of `compare`
        )
    losses = {} if diverged or not setting.test else evaluate_test(model, setting)
    values = model.hyperparameters.values()
    return ComparedRun(
        row=row,
        seed=seed,
        values={name: np.asarray(value).tolist() for name, value in values.items()},
        validation=clock.validation,
        steps=clock.steps,
        seconds=clock.seconds,
        final=math.inf if diverged else clock.validation[-1],
        test=find_test(losses),
        diverged=diverged,
    )


def _fit_held(setting, seed, clock):
    """Train at the initial hyperparameters; return the model, and why it diverged."""
    model, run = Trainer(setting).train_alone(None, seed, setting.epochs, clock)
    return model, "Its loss became NaN or infinite." if run.diverged else None


def _fit_by(method, setting, seed, clock):
    """Train and tune by a method; return the model, and why it diverged."""
    model = build_model(setting.build, seed)
    _check_new_space(model)
    recompile(model, method)
    keras.utils.set_random_seed(seed)
    x, y, weight = setting.training
    try:
        model.fit(
            x,
            y,
            sample_weight=weight,
            batch_size=setting.batch_size,
            epochs=setting.epochs,
            validation_data=setting.validation,
            verbose=0,
            callbacks=[clock],
        )
    except FloatingPointError as error:
        clock.note(math.inf, model)
        return model, str(error)
    return model, None


def train_again(
    values: dict[str, Any], setting: Setting, seed: int
) -> dict[str, float | None]:
    """Train from scratch at hyperparameters that stay.

    Args:
        values: The hyperparameters by name.
        setting: Data, epochs and batch size.
        seed: Seed of weights and training.

    Returns:
        A dict with "validation" and "test" losses at the end; `None` if there are no
        test data, and infinite losses if it diverged.
    """
    _, run = Trainer(setting).train_alone(values, seed, setting.epochs)
    final = math.inf if run.diverged else run.judged[-1]
    test = find_test(run.losses)
    if run.diverged and setting.test is not None:
        test = math.inf
    return {"validation": final, "test": test}


class _Clock(keras.callbacks.Callback):
    """Notes validation loss, steps and seconds after every epoch."""

    def __init__(self, start: float):
        super().__init__()
        self.validation: list[float] = []
        self.steps: list[float] = []
        self.seconds: list[float] = []
        self._start = start

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note them."""
        self.note(float((logs or {})[judge_name(self.model)]), self.model)

    def note(self, loss: float, model: BilevelModel) -> None:
        """Note a validation loss, and what it has cost."""
        self.validation.append(loss)
        self.steps.append(float(model.progress.inner_steps))
        self.seconds.append(time.perf_counter() - self._start)


def _check_new_space(model):
    space = model.hyperparameters
    initial = space.unconstrain({n: s.initial for n, s in space.scales.items()})
    if not np.array_equal(np.asarray(initial), np.asarray(space.unconstrained)):
        raise ValueError(
            "`build` must make a new HyperparameterSpace each time: this one has been "
            "tuned before, and a fit would begin there. "
            f"Received: values {space.values()}"[:500]
        )
