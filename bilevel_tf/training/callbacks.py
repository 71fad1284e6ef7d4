"""What happens around epochs and batches of `fit`."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.training import rounds


class FitCallback(keras.callbacks.Callback):
    """Counts epochs, and stops a fit that has become NaN at its last good state."""

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._kept = [(v, np.asarray(v.value)) for v in self._variables()]
        self._progress = dict(vars(self.model.progress))

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
        slots = [v for optimizer in optimizers for v in optimizer.variables]
        return [*model.variables, *slots]


def _is_finite(variable):
    value = tf.convert_to_tensor(variable.value)
    return not value.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(value)))
