"""What a `BilevelModel` does on one batch."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras, _replicas
from bilevel_tf.hyperparameters.pass_in_force import begin_pass, current_pass
from bilevel_tf.methods.method import Method
from bilevel_tf.network.example_factors import weigh_examples
from bilevel_tf.training.compiling.trained_layers import check_trained
from bilevel_tf.training.data import example_weights
from bilevel_tf.training.fitting import rounds
from bilevel_tf.training.fitting.fit_logs import log_names, stack_values


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
        _keras.check_compiled(self, "train_step")
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        loss, predictions = self.objective.inner_step(self.network, x, y, weight)
        count = tf.shape(keras.tree.flatten(x)[0])[0]
        _keras.update_mean_loss(self, _replicas.undo_share(loss), count)
        weight = self.weights_in_force(weight, y, predictions)
        return self.compute_metrics(x, y, predictions, sample_weight=weight)

    def outer_train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Take one outer step, which moves the hyperparameters.

        Args:
            data: Tuple of the batch that the objective is taken on and, if the method
                needs them, training batches stacked along a new first axis.

        Returns:
            Values of the hyperparameters and of what the method logs, by name.

        Raises:
            ValueError: If the model is not compiled, or training batches are missing.
        """
        _keras.check_compiled(self, "outer_train_step")
        check_outer_batches(self.method, data)
        logs = self.stacked_outer_step(data)
        values = tf.unstack(logs.pop("hyperparameters"))
        names = log_names(self.hyperparameters)
        return {**dict(zip(names, values, strict=True)), **logs}

    def stacked_outer_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Take the outer step; the values are one tensor.

        Args:
            data: As `outer_train_step` takes them.

        Returns:
            Scalars that the method logs, by name, and under "hyperparameters" the
            vector of `fit_logs.stack_values`.
        """
        batches = [keras.utils.unpack_x_y_sample_weight(part) for part in data]
        outer, training = (*batches, None)[:2]
        logs = self.method.outer_step(self.network, outer, training)
        return {"hyperparameters": stack_values(self.hyperparameters), **logs}

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Evaluate a batch; the loss has no weight penalties.

        Beside the training loss it shows the outer loss, if `compile` got one.

        Args:
            data: x, y and sample weights, as Keras passes them.

        Returns:
            Values of the metrics by name.
        """
        _keras.check_compiled(self, "test_step")
        delta = self.method.prediction_delta(self.hyperparameters)
        current = self.hyperparameters.current_at_once()
        with begin_pass(delta=delta, penalties=False, current=current):
            return super().test_step(data)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Return the metrics by name, with "outer_loss" among them in `test_step`.

        Args:
            x: Inputs of the model, `[batch, ...]` each.
            y: Targets.
            y_pred: Outputs of the model.
            sample_weight: Weights of the examples. Defaults to `None`.
        """
        outer = self.combined_outer_loss
        judging = outer is not None and current_pass().begun
        if judging:
            losses = None if self.objective.added_losses else ()
            with begin_pass(penalties=False, losses=losses):
                loss = self.compute_outer_loss(x, y, y_pred, sample_weight)
            loss = _replicas.undo_share(loss)
            count = tf.shape(keras.tree.flatten(x)[0])[0]
            outer.mean.update_state(loss, sample_weight=count)
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        if not judging:
            logs.pop("outer_loss", None)
        return logs

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that `evaluate` shows and that are reset between epochs."""
        outer = self.combined_outer_loss
        return super().metrics + ([] if outer is None else [outer.mean])

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
        weight = sample_weight
        if training:
            weight = self.weights_in_force(sample_weight, y, y_pred)
        return super().compute_loss(x, y, y_pred, weight, training)

    def compute_outer_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> tf.Tensor:
        """Return the loss by which validation data judge, a scalar.

        It is the `outer_loss` of `compile` or, without one, the compiled loss; what
        layers add comes on top.

        Args:
            x: Inputs of the model, `[batch, ...]` each.
            y: Targets.
            y_pred: Outputs of the model.
            sample_weight: Weights of the examples. Defaults to `None`.
        """
        if self.combined_outer_loss is None:
            return self.compute_loss(x, y, y_pred, sample_weight, training=False)
        with _keras.compiled_loss(self, self.combined_outer_loss):
            return self.compute_loss(x, y, y_pred, sample_weight, training=False)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Train the weights on one batch; the hyperparameters stay as they are.

        There are no data here by which hyperparameters could be judged. `fit` tunes
        them, and so does `outer_train_step` in a loop of your own.

        Args:
            x: Inputs, `[batch, ...]` each.
            y: Targets. Defaults to `None`.
            sample_weight: Weights of the examples, `[batch]`. Defaults to `None`.
            class_weight: Dict from classes to weights. Defaults to `None`.
            return_dict: Whether to return a dict by name. Defaults to `False`.

        Returns:
            The loss and the metrics, as in Keras.

        Raises:
            ValueError: If the model is not compiled, or layers have been frozen or
                unfrozen since.
            TypeError: If `sample_weight` is a hyperparameter: a batch does not say the
                numbers of its examples.
        """
        _keras.check_compiled(self, "train_on_batch")
        check_trained(self)
        example_weights.forget(self, sample_weight)
        warnings.warn(
            "`train_on_batch` trains the weights alone, and no hyperparameter is "
            "tuned. Use `fit`, or call `outer_train_step` between training steps.",
            stacklevel=2,
        )
        with rounds.inner_steps_alone(self):
            return super().train_on_batch(
                x, y, sample_weight, class_weight, return_dict
            )

    def tuned_weights(self, sample_weight: Any) -> Any:
        """Return the tuned weights `[batch]` of examples, or the weights as given."""
        return example_weights.look_up_weights(self.example_weights, sample_weight)

    def weights_in_force(self, sample_weight: Any, y: Any, y_pred: Any) -> Any:
        """Return the same, with tuned weights in the shapes of the outputs' losses.

        Args:
            sample_weight: As given.
            y: Targets of the batch.
            y_pred: Outputs of the model.
        """
        weight = self.tuned_weights(sample_weight)
        if weight is sample_weight:
            return weight
        return weigh_examples(self.network, y, y_pred, None, weight)

    def make_train_function(self, force: bool = False) -> None:
        """Make the function that `fit` calls: inner steps with outer ones between.

        Args:
            force: Whether to make it anew if there is one. Defaults to `False`.
        """
        if self.train_function is None or force:
            self.train_function = rounds.make_train_function(self)


def check_outer_batches(method: Method, data: Any) -> None:
    """Check that an outer step has the batches that its method needs.

    Raises:
        ValueError: If `data` is not a tuple of batches, or if training batches are
            missing or not stacked.
    """
    kinds = tuple, list, dict
    if not isinstance(data, tuple) or not data or not isinstance(data[0], kinds):
        raise ValueError(
            "`data` of `outer_train_step` must be a tuple whose first part is the "
            "batch to judge on, such as `((x_valid, y_valid),)`. "
            f"Received: data with {_name_types(data)}"
        )
    if not method.inner_batches:
        return
    ranks = [len(keras.tree.flatten(part)[0].shape) for part in data]
    if len(data) < 2 or ranks[1] != ranks[0] + 1:
        raise ValueError(
            f"{type(method).__name__} needs {method.inner_batches} training batches in "
            "an outer step, stacked along a new first axis, as the second part of "
            "`data`. For one batch: `((x_valid, y_valid), (x[None], y[None]))`. "
            f"Received: {len(data)} parts, with inputs of rank {ranks}"
        )


def _name_types(data):
    parts = data if isinstance(data, (tuple, list)) else [data]
    return [type(part).__name__ for part in parts]
