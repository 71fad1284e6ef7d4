"""What happens around epochs and batches of `fit`."""

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.training.compiling.trained_layers import check_trained
from bilevel_tf.training.fitting.fit_logs import log_names
from bilevel_tf.training.fitting.lost_hyperparameters import explain_lost, warn_of_lost
from bilevel_tf.training.saving.resume_state import to_array

_USUAL_CAUSES = (
    "Try a smaller learning rate, set `clipnorm` in the optimizers, or look for NaN in "
    "the {data}."
)


def with_fit_callback(callbacks: Any) -> list:
    """Put a `FitCallback` before the callbacks that were given to `fit`.

    Args:
        callbacks: One callback, a list or `keras.callbacks.CallbackList` of them, or
            `None`.

    Raises:
        TypeError: If one of them is no callback object.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    given = [each for each in keras.tree.flatten(list(given)) if each is not None]
    for callback in given:
        if isinstance(callback, type) or not hasattr(callback, "set_model"):
            raise TypeError(
                "`callbacks` must be keras.callbacks.Callback objects, such as "
                "[keras.callbacks.TerminateOnNaN()]. "
                f"Received: callbacks with {callback!r}"
            )
    kind = keras.callbacks.TerminateOnNaN
    return [FitCallback(any(isinstance(each, kind) for each in given)), *given]


class FitCallback(keras.callbacks.Callback):
    """Counts epochs, keeps learning rates equal, and stops a fit that becomes NaN.

    It copies all variables at the start of every epoch. If a loss, a hyperparameter or
    a variable becomes NaN or infinite, it restores that copy and raises a
    `FloatingPointError`.

    Args:
        terminate: Whether to end the fit with a warning in place of the error, as
            `keras.callbacks.TerminateOnNaN` asks for. Defaults to `False`.
    """

    def __init__(self, terminate: bool = False):
        super().__init__()
        self._terminate = terminate
        self._restored = False

    _rate = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Copy all variables and counts."""
        check_trained(self.model)
        self._epoch = epoch
        self._kept = [(v, to_array(v)) for v in self._list_variables()]
        self._progress = dict(vars(self.model.progress))
        self._start = np.asarray(self.model.hyperparameters.unconstrained)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Pass a learning rate that another callback set on to the responses."""
        # A schedule needs no care: both optimizers have it.
        model = self.model
        if not model.response_follows or not _has_settable_rate(model.optimizer):
            return
        rate = float(to_array(model.optimizer.learning_rate))
        if rate != self._rate:
            self._rate = rate
            model.response_optimizer.learning_rate = rate

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop if the loss or a hyperparameter is not finite."""
        logs = logs or {}
        watched = ["loss", *log_names(self.model.hyperparameters)]
        names = [name for name in watched if name in logs]
        finite = np.isfinite([float(logs[name]) for name in names])
        bad = [
            f"'{name}'" for name, good in zip(names, finite, strict=True) if not good
        ]
        # If the loss of the step is sound, the outer step after it was not.
        on_validation = self.model.objective.judged_on == "validation"
        outer = on_validation and "'loss'" not in bad
        data = "validation data" if outer else "training data"
        self._stop_if(bad, f"at step {batch + 1}", data)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop if a variable is not finite; else count the epoch."""
        if self._restored:
            return
        # No loss shows the effect of the last steps, nor of responses during warm-up.
        bad = [v.path for v, _ in self._kept if not _is_finite(v)]
        self._stop_if(bad, "at the end")
        warn_of_lost(self.model.hyperparameters, self._start)
        if not self._restored:
            self.model.progress.epochs += 1

    def _stop_if(self, bad, when, data="training and validation data"):
        if not bad:
            return
        causes = self._list_causes(data)
        for variable, value in self._kept:
            variable.assign(value)
        vars(self.model.progress).update(self._progress)
        self._restored = True
        shown = [*bad[:3], *(["and more"] if len(bad) > 3 else [])]
        message = (
            f"{', '.join(shown)} became NaN or infinite {when} of epoch "
            f"{self._epoch + 1}. Weights, responses, hyperparameters and optimizers "
            f"have been restored to their values at the start of this epoch. "
            f"{causes}"
        )
        if not self._terminate:
            raise FloatingPointError(message)
        self.model.stop_training = True
        warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _list_causes(self, data):
        space = self.model.hyperparameters
        lost = explain_lost(space, self._start)
        if not lost:
            return _USUAL_CAUSES.format(data=data)
        # A step that is too large ends in NaN as well, one outer step later.
        unsure = np.any(np.isnan(space.unconstrained))
        return f"{lost} Or look for NaN in the {data}." if unsure else lost

    def _list_variables(self):
        model = self.model
        optimizers = [model.optimizer, model.response_optimizer, model.hyper_optimizer]
        if model.network.objective_optimizer is not None:
            optimizers.append(model.network.objective_optimizer)
        slots = [v for optimizer in optimizers for v in optimizer.variables]
        return [*model.variables, *slots]


def _is_finite(variable):
    value = tf.convert_to_tensor(variable.value)
    return not value.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(value)))


def _has_settable_rate(optimizer):
    # In mixed precision Keras wraps the optimizer.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return isinstance(_keras.get_rate_source(optimizer), keras.Variable)
