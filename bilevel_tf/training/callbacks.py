"""What happens around epochs and batches of `fit`."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.training import rounds


class FitCallback(keras.callbacks.Callback):
    """Counts epochs, keeps learning rates together, and guards against NaN.

    A fit that has become NaN is stopped at its last good state.
    """

    _rate = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._kept = [(v, np.asarray(v.value)) for v in self._variables()]
        self._progress = dict(vars(self.model.progress))

    def on_train_batch_begin(self, batch, logs=None):
        # Other callbacks may have set the rate; a schedule is in both optimizers.
        model = self.model
        if not model.response_follows or not _has_settable_rate(model.optimizer):
            return
        rate = float(model.optimizer.learning_rate)
        if rate != self._rate:
            self._rate = rate
            model.response_optimizer.learning_rate = rate

    def on_train_batch_end(self, batch, logs=None):
        watched = {"loss", *rounds.log_names(self.model.hyperparameters)}
        bad = [
            f"'{name}'"
            for name, value in (logs or {}).items()
            if name in watched and not np.all(np.isfinite(value))
        ]
        self._stop_if(bad, f"at step {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        # The last steps show in no loss, nor do responses during warm-up.
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
            "are back to what they were at the start of this epoch. Try a smaller "
            "learning rate, or `clipnorm` in the optimizers, or look for NaN in the "
            "data."
        )

    def _variables(self):
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
    # Keras wraps optimizers of mixed precision, and shows a schedule as its value.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return isinstance(optimizer._learning_rate, keras.Variable)
