"""A warning about a `fit` that tunes no hyperparameter."""

import warnings

import keras
import numpy as np


class IdleFit:
    """Compares a `BilevelModel` before and after a `fit`.

    A fit is idle if no outer step falls into it or if the outer steps move nothing. A
    fit without outer steps is not idle if the model has taken some since `compile`:
    the count of training steps goes on from one fit to the next.

    Args:
        model: The compiled model, before the fit.
        epochs: Number of epochs that the fit is going to take.
        stacklevel: As in `warnings.warn`, counted from the caller.
    """

    def __init__(self, model: keras.Model, epochs: int, stacklevel: int = 2):
        self._model = model
        self._before = dict(vars(model.progress))
        self._values = self._read_values()
        self._stacklevel = stacklevel + 1
        self._said = epochs < 1
        warm = model.method.warmup_epochs
        all_warm = model.progress.epochs + epochs <= warm
        if all_warm and self._first_outer_step_missing() and not self._said:
            self._warn(
                f"No outer step falls into this `fit`, so that no hyperparameter is "
                f"tuned: all its epochs are warm-up. Set a smaller `warmup_epochs` in "
                f"{type(model.method).__name__}, or fit for more epochs. Received: "
                f"warmup_epochs={warm}, {model.progress.epochs} epochs taken before, "
                f"and {epochs} in this fit"
            )

    def warn(self) -> None:
        """Warn, after the fit, if it tuned nothing."""
        method, progress = self._model.method, self._model.progress
        steps = progress.inner_steps - self._before["inner_steps"]
        outer_steps = progress.outer_steps - self._before["outer_steps"]
        if self._said or not steps:
            return
        if outer_steps:
            if np.array_equal(self._values, self._read_values()):
                self._warn(self._explain_stillness(outer_steps))
        elif self._first_outer_step_missing():
            self._warn(
                "No outer step fell into this `fit`, so that no hyperparameter was "
                f"tuned: it took {steps} training steps, and an outer step comes after "
                f"every {method.train_steps}"
                + (" when warm-up is over" if method.warmup_epochs else "")
                + f". Set a smaller `train_steps` in {type(method).__name__}, use "
                "smaller batches, or fit for more epochs. Received: "
                f"train_steps={method.train_steps}, {steps} training steps"
            )

    def _explain_stillness(self, outer_steps):
        rate = keras.ops.convert_to_numpy(self._model.hyper_optimizer.learning_rate)
        return (
            f"{outer_steps} outer steps moved no hyperparameter. "
            + (
                "The learning rate of `hyper_optimizer` is 0: set a larger one. "
                if rate == 0
                else "Their gradients are zero, or too small for `hyper_optimizer`: "
                "look whether the objective depends on them, or set a larger learning "
                "rate. "
            )
            + f"Received: hyper_optimizer with learning_rate={float(rate)}"
        )

    def _first_outer_step_missing(self):
        return self._model.progress.outer_steps == self._model.outer_steps_at_compile

    def _read_values(self):
        unconstrained = self._model.hyperparameters.unconstrained
        return np.array(keras.ops.convert_to_numpy(unconstrained))

    def _warn(self, message):
        self._said = True
        warnings.warn(message, stacklevel=self._stacklevel + 1)
