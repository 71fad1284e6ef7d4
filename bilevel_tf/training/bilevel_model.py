"""A Keras model that trains its weights and tunes its hyperparameters in one fit."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.network.keras_network import KerasNetwork
from bilevel_tf.network.output_heads import check_losses_fit_outputs
from bilevel_tf.network.responding_network import RespondingNetwork
from bilevel_tf.objectives.validation_loss import ValidationLoss
from bilevel_tf.optimizers.following import following
from bilevel_tf.optimizers.tuned import TunedOptimizer
from bilevel_tf.training import (
    checks,
    conversion,
    example_weights,
    fit_data,
    rounds,
    state,
)
from bilevel_tf.training.callbacks import FitCallback
from bilevel_tf.training.stored_model import StoredModel


@keras.saving.register_keras_serializable("bilevel_tf")
class BilevelModel(StoredModel, RespondingNetwork, keras.Model):
    """A functional Keras model with hyperparameters that `fit` tunes.

    Made and used as `keras.Model(inputs, outputs)`. `fit` trains the weights on the
    training data and, between training steps, moves the hyperparameters down the loss
    on the validation data. An epoch is one pass over the training data.

    What hyperparameters are judged by is the objective given to `compile`, by default
    the loss on validation data. That, `val_loss` and `evaluate` leave weight penalties
    out: they are means of training. `val_loss` is then of data on which
    hyperparameters were tuned; keep a test set for a fair figure.

    Args:
        inputs: As in `keras.Model`.
        outputs: As in `keras.Model`.
        hyperparameters: The `HyperparameterSpace` of the model's layers.
        name: Optional name.

    Raises:
        TypeError: If `hyperparameters` is not a `HyperparameterSpace`.
        ValueError: If a layer refers to another space or an unknown hyperparameter.

    Example:

    >>> hp = bt.HyperparameterSpace(dropout=bt.Uniform(0.0, 0.95, initial=0.05))
    >>> inputs = keras.Input((784,))
    >>> x = bt.HyperDense(300, activation="relu")(inputs)
    >>> outputs = bt.HyperDense(10)(bt.HyperDropout(hp["dropout"])(x))
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    """

    def __init__(self, *args, hyperparameters=None, **kwargs):
        if not isinstance(hyperparameters, HyperparameterSpace):
            raise TypeError(
                "`hyperparameters` must be a bilevel_tf.HyperparameterSpace. "
                f"Received: hyperparameters={hyperparameters!r}. To copy a model use "
                "BilevelModel.from_config(model.get_config()): clone_model does not "
                "pass the space on."
            )
        super().__init__(*args, **kwargs)
        self.hyperparameters = hyperparameters
        if not any(layer is hyperparameters for layer in self._layers):
            # Older releases of Keras 3 track the layers of the graph alone.
            self._layers.append(hyperparameters)
        self.method = None
        self.objective = ValidationLoss()
        self.stepping_optimizer = None
        self.response_optimizer = None
        self.response_follows = False
        self.hyper_optimizer = None
        self.objective_stepping_optimizer = None
        self.progress = rounds.Progress()
        self.outer = None
        self.example_weights = None
        self.network_state = {}
        self.network = KerasNetwork(self)
        for layer in self._flatten_layers(include_self=False):
            for reference in references(layer):
                reference.bind(hyperparameters)
        checks.check_factor_shapes(self)

    @classmethod
    def from_keras(cls, model, hyperparameters, tune=None, name=None):
        """Convert a Sequential or functional Keras model, keeping its weights.

        Dense, Conv2D, Dropout and GaussianNoise layers become their
        hyper-counterparts; all other layers stay what they are. Dense and Conv2D
        layers that `tune` gives a `prior` become variational instead, with the
        posterior's means at the model's weights.

        Args:
            model: A built `keras.Sequential` or functional `keras.Model`.
            hyperparameters: The `HyperparameterSpace`.
            tune: What the hyperparameters do: a dict from layer names, or Keras layer
                classes for all layers of a class, to dicts of layer arguments.
            name: Optional name; defaults to the model's.

        Returns:
            A `BilevelModel`, not compiled.

        Example:

        >>> model = bt.BilevelModel.from_keras(keras_model, hp, tune={
        ...     keras.layers.Dropout: {"rate": hp["dropout"]},
        ...     "dense_1": {"kernel_regularizer": bt.L2(hp["weight_decay"])},
        ... })
        """
        inputs, outputs = conversion.hyper_network(model, tune or {})
        name = name or model.name
        return cls(inputs, outputs, hyperparameters=hyperparameters, name=name)

    def to_keras(self):
        """The trained network as a plain Keras model, free of this library.

        Tuned arguments have their current values and kernels are those that the model
        predicts with, the means of variational layers. A penalty with a factor per
        weight, which Keras does not have, is left out.
        """
        return conversion.plain_network(self)

    # Compilation

    def compile(
        self,
        optimizer="sgd",
        loss=None,
        *,
        hyper_optimizer=None,
        response_optimizer=None,
        method=None,
        objective=None,
        **kwargs,
    ):
        """Configure training.

        Args:
            optimizer: Of the weights, as in Keras, or a `TunedOptimizer` with
                hyperparameters of its own. Defaults to "sgd".
            loss: As in Keras.
            hyper_optimizer: Of λ and σ. Defaults to `RMSprop(1e-2)`, which the Δ-STN
                paper uses on images.
            response_optimizer: Of the responses. Defaults to a copy of `optimizer`
                that follows its learning rate, as Alg. 1 has one for both.
            method: How hyperparameters are tuned. Defaults to `DeltaSTN()`; has to be
                given where the objective is another than the validation loss.
            objective: What hyperparameters are judged by. Defaults to
                `ValidationLoss()`.
            **kwargs: The other arguments of `keras.Model.compile`.

        Raises:
            TypeError: If `method` or `objective` is not an object of this library's.
            ValueError: If the model does not fit the method or the objective, these do
                not fit each other, or the final activation does not fit the loss.
        """
        objective = ValidationLoss() if objective is None else objective
        method = checks.check_method(method, checks.check_objective(objective))
        tuned = _is_tuned(optimizer)
        config = optimizer.config if tuned else None
        super().compile(following(optimizer, self.hyperparameters), loss, **kwargs)
        # Unwrap the LossScaleOptimizer: our steps do not scale the loss; results agree
        # up to rounding.
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        self.stepping_optimizer = optimizer if tuned else inner
        if tuned:
            self._compile_config.config["optimizer"] = optimizer
        for reference in references([loss, kwargs]):
            reference.bind(self.hyperparameters)
        check_losses_fit_outputs(self.outputs, self.network.losses)
        self.objective = objective
        checks.check_log_names(self)
        self._build_stages(objective, method)
        self.optimizer.build(self.trainable_variables)
        self.response_optimizer = _optimizer(response_optimizer, self.optimizer, config)
        self.response_follows = response_optimizer is None
        self.response_optimizer.build(self.network.response_variables)
        default = keras.optimizers.RMSprop(1e-2)
        self.hyper_optimizer = _optimizer(hyper_optimizer, default)
        self.hyper_optimizer.build(method.tuned_variables(self.hyperparameters))

    def _build_stages(self, objective, method):
        """Take objective and method through `check` and `build`.

        A model that is being loaded is not compiled and cannot be checked yet.
        """
        network = self.network
        self.network_state.clear()
        self.objective_stepping_optimizer = None
        if self.compiled:
            objective.check(network)
        objective.build(network)
        if self.compiled:
            method.check(network)
        method.build(network)
        self.method = method

    # Steps

    def train_step(self, data):
        """One inner step."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        loss, predictions = self.objective.inner_step(self.network, x, y, weight)
        count = tf.shape(keras.tree.flatten(x)[0])[0]
        self._loss_tracker.update_state(loss, sample_weight=count)
        weight = self.weights_in_force(weight)
        return self.compute_metrics(x, y, predictions, sample_weight=weight)

    def outer_train_step(self, data):
        """One outer step; returns the hyperparameters for the logs.

        Args:
            data: Tuple of the batch that the objective is taken on and, where the
                method needs them, training batches stacked along a new first axis.
        """
        batches = [keras.utils.unpack_x_y_sample_weight(part) for part in data]
        outer, training = (*batches, None)[:2]
        logs = self.method.outer_step(self.network, outer, training)
        return {**rounds.hyperparameter_logs(self.hyperparameters), **logs}

    def evaluate_objective(self, x, y=None, sample_weight=None):
        """Q, by which hyperparameters are judged, on all of these data at once.

        Args:
            x, y, sample_weight: Arrays, of the data that the objective is judged on.

        Returns:
            A float; the smaller the better.
        """
        self._assert_compile_called("evaluate_objective")
        data = x, y, sample_weight
        if self.objective.judged_on == "training":
            data = self.objective.prepare(self.network, *data)
        data = keras.tree.map_structure(
            lambda array: None if array is None else tf.convert_to_tensor(array), data
        )
        problem = self.network.problem(None, data)
        return float(problem.outer_loss(problem.weights, problem.hyperparameters))

    def weights_in_force(self, sample_weight):
        """The weights of a batch's examples, where these are tuned; else as given."""
        return example_weights.in_force(self.example_weights, sample_weight)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """As in Keras."""
        weight = self.weights_in_force(sample_weight) if training else sample_weight
        return super().compute_loss(x, y, y_pred, weight, training)

    def test_step(self, data):
        """One evaluation step, of the loss without weight penalties."""
        delta = self.method.prediction_delta(self.hyperparameters)
        with begin_pass(delta=delta, penalties=False):
            return super().test_step(data)

    def make_train_function(self, force=False):
        """The function that `fit` calls: inner steps, and outer steps between them."""
        if self.train_function is None or force:
            self.train_function = rounds.train_function(self)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        sample_weight=None,
        **kwargs,
    ):
        """Train the weights and tune the hyperparameters.

        Args:
            x, y, batch_size, epochs, verbose, callbacks: As in Keras.
            validation_data: A tuple of arrays, a `tf.data.Dataset` of batches or a
                `keras.utils.PyDataset`. Where the objective judges on validation data,
                outer steps draw from it without end; arrays are reshuffled on every
                pass and cut into batches of `batch_size`. Other objectives draw from
                the training data so, and need none.
            validation_split: As in Keras, in place of `validation_data`.
            sample_weight: As in Keras; or a hyperparameter with a value per training
                example, which are then tuned. `x` must be arrays for that.
            **kwargs: The other arguments of `keras.Model.fit`.

        Returns:
            The `History`, which has the hyperparameters by name beside the metrics; a
            vector-valued one as its mean, under `<name>_mean`.

        Raises:
            ValueError: If the objective needs validation data, and there is none or
                it is empty.
            FloatingPointError: If the loss or a hyperparameter becomes NaN or
                infinite. Weights, responses, hyperparameters and optimizers are then
                those of the start of that epoch.
        """
        self._assert_compile_called("fit")
        if self.method.inner_batches and kwargs.get("class_weight"):
            raise ValueError(
                f"{type(self.method).__name__} differentiates the training loss and "
                "does not see `class_weight`. Use `sample_weight` instead."
            )
        (x, y, sample_weight), validation_data, feed = fit_data.prepared(
            self,
            (x, y, sample_weight),
            validation_data,
            validation_split,
            batch_size or 32,
        )
        distribute = self.distribute_strategy.experimental_distribute_dataset
        logs = rounds.hyperparameter_logs(self.hyperparameters)
        names = *self.method.log_names, *self.objective.log_names
        logs |= dict.fromkeys(names, float("nan"))
        self.outer = rounds.Outer(iter(distribute(feed)), logs)
        # Keras calls `finalize_variable_values` of the first alone.
        history = super().fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            validation_data=validation_data,
            sample_weight=sample_weight,
            callbacks=state.with_callback(callbacks, FitCallback()),
            **kwargs,
        )
        self.response_optimizer.finalize_variable_values(
            self.network.response_variables
        )
        return history


def _is_tuned(optimizer):
    return isinstance(optimizer, TunedOptimizer)


def _optimizer(given, default, config=None):
    if given is None:
        return type(default).from_config(config or default.get_config())
    return keras.optimizers.get(given)
