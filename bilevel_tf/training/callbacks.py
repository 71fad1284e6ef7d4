"""What happens around epochs and batches of `fit`."""

import keras
import numpy as np

from bilevel_tf.training import rounds


class FitCallback(keras.callbacks.Callback):
    """Counts epochs, and stops a fit that has become NaN at its last good state."""

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        variables = self._variables()
        self._kept = [(v, np.asarray(v.value)) for v in variables]
        self._progress = dict(vars(self.model.progress))

    def on_train_batch_end(self, batch, logs=None):
        watched = {"loss", *rounds.log_names(self.model.hyperparameters)}
        bad = [
            name
            for name, value in (logs or {}).items()
            if name in watched and not np.isfinite(np.asarray(value))
        ]
        if not bad:
            return
        for variable, value in self._kept:
            variable.assign(value)
        vars(self.model.progress).update(self._progress)
        what = ", ".join(f"'{name}'" for name in bad)
        raise FloatingPointError(
            f"{what} became NaN or infinite at step {batch + 1} of epoch "
            f"{self._epoch + 1}. Weights, hyperparameters and optimizers are back to "
            "what they were at the start of this epoch. Try a smaller learning rate, "
            "or `clipnorm` in the optimizers, or look for NaN in the data."
        )

    def on_epoch_end(self, epoch, logs=None):
        self.model.progress.epochs += 1

    def _variables(self):
        model = self.model
        optimizers = [model.optimizer, model.response_optimizer, model.hyper_optimizer]
        slots = [v for optimizer in optimizers for v in optimizer.variables]
        return [*model.variables, *slots]
