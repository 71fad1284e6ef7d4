"""What happens around epochs and batches of `fit`."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.training.fit_logs import log_names
from bilevel_tf.training.resume_state import to_array


def put_first(first: keras.callbacks.Callback, callbacks: Any) -> list:
    """Put a callback before those that were given to `fit`.

    Args:
        first: The callback that is to run first.
        callbacks: One callback, a list of them, or `None`.
    """
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    return [first, *(callback for callback in given if callback is not None)]


class FitCallback(keras.callbacks.Callback):
    """Counts epochs, keeps learning rates equal, and stops a fit that becomes NaN.

    It copies all variables at the start of every epoch. If a loss, a hyperparameter or
    a variable becomes NaN or infinite, it restores that copy and raises a
    `FloatingPointError`.
    """

    _rate = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Copy all variables and counts."""
        self._epoch = epoch
        self._kept = [(v, to_array(v)) for v in self._list_variables()]
        self._progress = dict(vars(self.model.progress))

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
        watched = {"loss", *log_names(self.model.hyperparameters)}
        bad = [
            f"'{name}'"
            for name, value in (logs or {}).items()
            if name in watched and not np.all(np.isfinite(value))
        ]
        self._stop_if(bad, f"at step {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop if a variable is not finite; else count the epoch."""
        # No loss shows the effect of the last steps, nor of responses during warm-up.
        bad = [v.path for v, _ in self._kept if not _is_finite(v)]
        self._stop_if(bad, "at the end")
        self.model.progress.epochs += 1

    def _stop_if(self, bad, when):
        if not bad:
            return
        for variable, value in self._kept:
            variable.assign(value)
        vars(self.model.progress).update(self._progress)
        shown = [*bad[:3], *(["and more"] if len(bad) > 3 else [])]
        raise FloatingPointError(
            f"{', '.join(shown)} became NaN or infinite {when} of epoch "
            f"{self._epoch + 1}. Weights, responses, hyperparameters and optimizers "
            "have been restored to their values at the start of this epoch. Try a "
            "smaller learning rate, set `clipnorm` in the optimizers, or look for NaN "
            "in the data."
        )

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
