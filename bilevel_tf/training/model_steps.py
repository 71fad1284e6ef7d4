"""What a `BilevelModel` does on one batch."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras, _replicas
from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.training import rounds
from bilevel_tf.training.example_weights import look_up_weights
from bilevel_tf.training.fit_logs import hyperparameter_logs


class ModelSteps:
    """Mixin for a Keras model: the steps that `fit` and `evaluate` take.

    Keras calls these methods under the names that they have here. The model has a
    `method`, an `objective`, a `network` and `hyperparameters`, and in
    `example_weights` the hyperparameter that holds the weights of the training
    examples, or `None`.
    """

    train_function: Callable | None

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Take one inner step, which trains the weights on a batch.

        Args:
            data: x, y and sample weights, as Keras passes them.

        Returns:
            Values of the metrics by name.
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        loss, predictions = self.objective.inner_step(self.network, x, y, weight)
        count = tf.shape(keras.tree.flatten(x)[0])[0]
        _keras.update_mean_loss(self, _replicas.undo_share(loss), count)
        weight = self.weights_in_force(weight)
        return self.compute_metrics(x, y, predictions, sample_weight=weight)

    def outer_train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Take one outer step, which moves the hyperparameters.

        Args:
            data: Tuple of the batch that the objective is taken on and, if the method
                needs them, training batches stacked along a new first axis.

        Returns:
            Values of the hyperparameters and of what the method logs, by name.
        """
        batches = [keras.utils.unpack_x_y_sample_weight(part) for part in data]
        outer, training = (*batches, None)[:2]
        logs = self.method.outer_step(self.network, outer, training)
        return {**hyperparameter_logs(self.hyperparameters), **logs}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Evaluate a batch; the loss has no weight penalties.

        Args:
            data: x, y and sample weights, as Keras passes them.

        Returns:
            Values of the metrics by name.
        """
        delta = self.method.prediction_delta(self.hyperparameters)
        with begin_pass(delta=delta, penalties=False):
            return super().test_step(data)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Return the compiled loss of a batch plus what layers add, a scalar.

        Args:
            x: Inputs of the model, `[batch, ...]` each.
            y: Targets.
            y_pred: Outputs of the model.
            sample_weight: Weights of the examples or, if `fit` tunes them, numbers of
                the examples. Defaults to `None`.
            training: Whether this is a training loss; tuned example weights count in
                these alone. Defaults to `True`.
        """
        weight = self.weights_in_force(sample_weight) if training else sample_weight
        return super().compute_loss(x, y, y_pred, weight, training)

    def weights_in_force(self, sample_weight: Any) -> Any:
        """Return the tuned weights of a batch's examples, or the weights as given."""
        return look_up_weights(self.example_weights, sample_weight)

    def make_train_function(self, force: bool = False) -> None:
        """Make the function that `fit` calls: inner steps with outer ones between.

        Args:
            force: Whether to make it anew if there is one. Defaults to `False`.
        """
        if self.train_function is None or force:
            self.train_function = rounds.make_train_function(self)
