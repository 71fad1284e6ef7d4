"""A Keras model that trains its weights and tunes its hyperparameters in one fit."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf._arguments import check_count
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.methods.method import Method
from bilevel_tf.network.keras_network import KerasNetwork
from bilevel_tf.network.loss_checks import check_losses
from bilevel_tf.network.responding_network import RespondingNetwork
from bilevel_tf.objectives.objective import Objective
from bilevel_tf.objectives.validation_loss import ValidationLoss
from bilevel_tf.optimizers.following import follow_space
from bilevel_tf.optimizers.tuned import TunedOptimizer
from bilevel_tf.training.compiling.binding import (
    bind_references,
    check_factor_shapes,
    separate_output_penalties,
)
from bilevel_tf.training.compiling.compile_arguments import (
    check_loss_weights,
    choose_method,
    choose_objective,
)
from bilevel_tf.training.compiling.construction import check_arguments
from bilevel_tf.training.compiling.influence_checks import (
    check_influences,
    settle_influences,
)
from bilevel_tf.training.compiling.optimizer_arguments import (
    build_optimizers,
    check_optimizers_differ,
)
from bilevel_tf.training.compiling.outer_loss import combine_outer_loss
from bilevel_tf.training.compiling.strategies import check_in_scope, under_strategy
from bilevel_tf.training.compiling.trained_layers import check_trained, note_trained
from bilevel_tf.training.conversion.converted_model import ConvertedModel, copy_space
from bilevel_tf.training.data.fit_data import prepare_data
from bilevel_tf.training.fitting import rounds
from bilevel_tf.training.fitting.callbacks import with_fit_callback
from bilevel_tf.training.fitting.fit_logs import check_log_names, hyperparameter_logs
from bilevel_tf.training.fitting.idle_fit import IdleFit
from bilevel_tf.training.fitting.model_steps import ModelSteps
from bilevel_tf.training.fitting.outer_steps import distribute_outer
from bilevel_tf.training.saving.stored_model import StoredModel


@keras.saving.register_keras_serializable("bilevel_tf")
class BilevelModel(
    StoredModel, ConvertedModel, ModelSteps, RespondingNetwork, keras.Model
):
    """A functional Keras model with hyperparameters that `fit` tunes.

    It is made and used as `keras.Model(inputs, outputs)` is. `fit` trains the weights
    on the training data and, between training steps, moves the hyperparameters so that
    the objective decreases. The objective given to `compile` says what hyperparameters
    are judged by; by default it is the loss on the validation data.

    That loss, `val_loss` and `evaluate` leave weight penalties out, because penalties
    are means of training and not an end. Hyperparameters have been tuned on the data
    of `val_loss`; for an unbiased estimate keep a test set.

    Args:
        *args: `inputs`, the symbolic inputs, a `keras.Input` or a list or dict of them;
            and `outputs`, the symbolic outputs, a tensor or a list or dict of them.
        hyperparameters: The `HyperparameterSpace` that all layers of the model refer
            to. It is required.
        **kwargs: `inputs` and `outputs`, if given by name; `name`, by default one that
            Keras makes; and `trainable`, whether the weights are trained, by default
            what each layer says.

    Call arguments:
        inputs: Tensors structured as `inputs`, `[batch, ...]` each.
        training: Whether dropout and the like are active. Defaults to `None`, as in
            Keras.
        mask: As in Keras. Defaults to `None`.

    Returns:
        A call returns tensors structured as `outputs`, at the present hyperparameters.

    Attributes:
        hyperparameters: The space; `hyperparameters.values()` is a dict of the present
            values on the constrained scale.
        method: The method given to `compile`, or `None`.
        objective: The objective given to `compile`.
        network: The `Network` by which methods and objectives see the model.

    Raises:
        TypeError: If `hyperparameters` is not a `HyperparameterSpace`, or `inputs` and
            `outputs` are not symbolic tensors.
        ValueError: If a layer refers to another space or an unknown hyperparameter, or
            if the shape of a hyperparameter does not fit the weight that it penalises.

    Example:

    >>> keras.utils.set_random_seed(0)
    >>> x, y = np.random.normal(size=(2, 40, 8))
    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1e2, initial=1e-2))
    >>> inputs = keras.Input((8,))
    >>> outputs = bt.HyperDense(8, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile("sgd", loss="mse", hyper_optimizer=keras.optimizers.Adam(0.1))
    >>> history = model.fit(
    ...     x, y, epochs=3, batch_size=4, validation_split=0.5, verbose=0
    ... )
    >>> sorted(history.history)
    ['l2', 'loss', 'val_loss']
    >>> hp.values()["l2"] > 1e-2  # The targets are noise.
    True

    Reference:
        Bae & Grosse, "Delta-STN: Efficient Bilevel Optimization for Neural Networks
        using Structured Response Jacobians", 2020, for the default method.
    """

    def __init__(
        self,
        *args: Any,
        hyperparameters: HyperparameterSpace | None = None,
        **kwargs: Any,
    ):
        # Every release of Keras takes a class with these two names, `args` and
        # `kwargs`, for a functional model.
        if hyperparameters is None:
            hyperparameters = copy_space([args[1:2], kwargs.get("outputs")])
        space = check_arguments(type(self), args, kwargs, hyperparameters)
        super().__init__(*args, **kwargs)
        self.hyperparameters = space
        _keras.add_layer(self, space)
        self.method: Method | None = None
        self.objective: Objective = ValidationLoss()
        self.stepping_optimizer: Any = None
        self.response_optimizer: keras.optimizers.Optimizer | None = None
        self.response_follows = False
        self.hyper_optimizer: keras.optimizers.Optimizer | None = None
        self.objective_stepping_optimizer: Any = None
        self.progress = rounds.Progress()
        self.outer: rounds.Outer | None = None
        self.example_weights = None
        self.returns_batches = False
        self.combined_outer_loss: Any = None
        self.waiting_names: frozenset[str] = frozenset()
        self.network_state: dict[str, Any] = {}
        self.network = KerasNetwork(self)
        bind_references(self.network.layers, space)
        separate_output_penalties(self.network.layers)
        check_factor_shapes(self.trainable_variables)

    @property
    def objective_optimizer(self) -> keras.optimizers.Optimizer | None:
        """The Keras optimizer of variables that the objective trains, or `None`.

        Keras saves the optimizers that it finds among the attributes of a model. It
        would not find one inside a `TunedOptimizer`.
        """
        return self.network.objective_optimizer

    # Compilation

    @under_strategy
    def compile(
        self,
        optimizer: Any = "sgd",
        loss: Any = None,
        *,
        outer_loss: Any = None,
        outer_loss_weights: Any = None,
        hyper_optimizer: Any = None,
        response_optimizer: Any = None,
        method: Method | None = None,
        objective: Objective | None = None,
        **kwargs: Any,
    ) -> None:
        """Configure training.

        Args:
            optimizer: Optimizer of the weights: a Keras optimizer, its name or config,
                or a `TunedOptimizer`, which has hyperparameters of its own. Defaults to
                "sgd".
            loss: Loss as in Keras: a name, function or `keras.losses.Loss`, or a list
                or dict with one per output. Defaults to `None`: only the losses that
                layers add.
            outer_loss: Loss on validation data that judges the hyperparameters, in
                place of `loss` and as flexible. It is needed if a hyperparameter stands
                in `loss`, which would else be its own judge. `evaluate` and `fit` show
                it as "outer_loss" and "val_outer_loss"; `val_loss` remains the training
                loss. Defaults to `None`, the same as `loss`.
            outer_loss_weights: Factors of the outputs' losses in `outer_loss`, as
                `loss_weights` are in `loss`. Defaults to `None`: all 1.
            hyper_optimizer: Optimizer of λ and σ. It steps on the unconstrained scale,
                in whose units its learning rate is. Defaults to
                `keras.optimizers.RMSprop(1e-2, epsilon=1e-36)`, the Δ-STN paper's on
                images: λ moves at one speed, however small hypergradients are. Keras's
                own epsilon of 1e-7 slows down hypergradients below 3e-4, which are
                usual near an end of a range, in "rmsprop" too.
            response_optimizer: Optimizer of the best response Θ. Defaults to a copy of
                `optimizer` that follows its learning rate, because Alg. 1 of the Δ-STN
                paper has one learning rate for both. Methods that fit no response do
                not use it.
            method: The method that tunes the hyperparameters. Defaults to `DeltaSTN()`,
                but must be given if `objective` is not the validation loss.
            objective: What hyperparameters are judged by. Defaults to
                `ValidationLoss()`.
            **kwargs: Arguments that go to `keras.Model.compile` as they are:
                `loss_weights` (factors of the outputs' losses), `metrics`,
                `weighted_metrics` (metrics that see sample weights), `run_eagerly`
                (run step by step in Python, for debugging), `steps_per_execution`
                (number of batches per call of the compiled function), `jit_compile`
                (whether to use XLA) and `auto_scale_loss` (whether to scale the loss
                in mixed_float16).

        Raises:
            TypeError: If `method` or `objective` is not an object of its kind, or a
                hyperparameter is given to `loss_weights`.
            ValueError: If an optimizer cannot be made, is given twice or has been built
                for other variables; if the model does not fit the method or the
                objective, if these do not fit each other, if the final activation does
                not fit the loss, if a hyperparameter has the name of a loss or metric,
                or if nothing that is judged depends on it.

        Warns:
            UserWarning: If a hyperparameter stands in a loss that also judges it.

        Example:

        >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
        >>> inputs = keras.Input((8,))
        >>> outputs = bt.HyperDense(3, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        >>> model.compile(
        ...     keras.optimizers.Adam(1e-3),
        ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ...     hyper_optimizer=keras.optimizers.Adam(3e-3),
        ...     method=bt.Neumann(10),
        ...     metrics=["accuracy"],
        ... )
        """
        objective = choose_objective(objective)
        method = choose_method(method, objective)
        check_loss_weights([kwargs.get("loss_weights"), outer_loss_weights])
        check_optimizers_differ(optimizer, response_optimizer, hyper_optimizer)
        check_count(kwargs.get("steps_per_execution", 1), "steps_per_execution", 1)
        tuned = isinstance(optimizer, TunedOptimizer)
        config = optimizer.config if tuned else None
        super().compile(follow_space(optimizer, self.hyperparameters), loss, **kwargs)
        # Unwrap the LossScaleOptimizer: our steps do not scale the loss; results agree
        # up to rounding.
        inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        self.stepping_optimizer = optimizer if tuned else inner
        if tuned:
            _keras.set_compile_argument(self, "optimizer", optimizer)
        outer = outer_loss, outer_loss_weights
        bind_references([loss, outer, kwargs], self.hyperparameters)
        check_losses(self.network, loss)
        self.combined_outer_loss = combine_outer_loss(self, objective, *outer)
        self.objective = objective
        check_log_names(self)
        self._build_stages(objective, method)
        build_optimizers(self, response_optimizer, hyper_optimizer, config)
        note_trained(self)
        self.outer_steps_at_compile = self.progress.outer_steps
        self.waiting_names = check_influences(self.network)

    def _build_stages(self, objective: Objective, method: Method) -> None:
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

    # Training

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train the weights and tune the hyperparameters.

        An epoch is one pass over the training data. After every `train_steps` training
        steps of the method come `valid_steps` outer steps, which move the
        hyperparameters.

        Args:
            x: Training inputs as in Keras: arrays, `[n, ...]` each, a
                `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator.
            y: Targets, `[n, ...]`. Defaults to `None`, for data sets that have them.
            batch_size: Number of examples in a batch of arrays. Defaults to `None`,
                which means 32.
            epochs: Number of epochs. Defaults to 1.
            verbose: 0 for no output, 1 for a progress bar, 2 for one line per epoch.
                Defaults to "auto", as in Keras.
            callbacks: Keras callbacks. Defaults to `None`.
            validation_split: Share of the training arrays, from their end, that becomes
                the validation data; in (0, 1), or 0 for none. Ignored if
                `validation_data` is given. Defaults to 0.
            validation_data: A tuple of arrays, a `tf.data.Dataset` of batches, a
                `keras.utils.PyDataset` or a generator, which is read once and kept in
                memory. If the objective judges on validation data, it is required, and
                outer steps draw from it without end: arrays are reshuffled on every
                pass and cut into equal batches. Training batches for outer steps come
                from arrays in the same way; of other data they are the last ones that
                training has used, because `fit` reads `x` only once an epoch. Defaults
                to `None`.
            sample_weight: Weights of the training examples, as in Keras; or a
                hyperparameter of shape `[n]`, whose values are then tuned as the
                weights. That needs arrays in `x`. Defaults to `None`: all weigh the
                same.
            **kwargs: Arguments that go to `keras.Model.fit` as they are: `shuffle`
                (whether to shuffle arrays), `class_weight` (a dict; not for methods
                that differentiate training), `initial_epoch`, `steps_per_epoch`,
                `validation_batch_size` (of validation arrays, in outer steps as well;
                by default `batch_size`), `validation_steps` (number of validation
                batches, from the first, that are used, in outer steps as well; by
                default all; required if the data have no end) and `validation_freq`
                (for the evaluation after an epoch alone).

        Returns:
            The `History`. It has the hyperparameters by name beside the metrics, on the
            constrained scale; a vector-valued one as its mean, under `<name>_mean`.

        Raises:
            ValueError: If the model is not compiled, or layers have been frozen or
                unfrozen since; if the objective needs validation data, and there are
                none; if data fit neither each other nor the model, or a number is out
                of range; or if the method or the objective cannot take these data.
            TypeError: If data are of a kind that the method or objective cannot take.
            FloatingPointError: If the loss or a hyperparameter becomes NaN or
                infinite. Weights, responses, hyperparameters and optimizers then have
                their values from the start of that epoch. With
                `keras.callbacks.TerminateOnNaN` among the callbacks, `fit` warns, stops
                and returns its history instead.

        Example:

        >>> keras.utils.set_random_seed(0)
        >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
        >>> inputs = keras.Input((8,))
        >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        >>> model.compile("sgd", loss="mse", method=bt.methods.T1T2(train_steps=2))
        >>> x, y = np.ones((32, 8)), np.zeros((32, 1))
        >>> history = model.fit(
        ...     x, y, 8, epochs=2, validation_data=(x, y), shuffle=False, verbose=0
        ... )
        >>> len(history.history["l2"])
        2
        """
        _keras.check_compiled(self, "fit")
        check_trained(self)
        method = self.network.method
        numbers = {"batch_size": batch_size, "epochs": epochs, **kwargs}
        numbers["validation_split"] = validation_split
        (x, y, sample_weight), validation_data, feed = prepare_data(
            self, (x, y, sample_weight), validation_data, numbers
        )
        settle_influences(self, feed)
        check_in_scope(self, "fit")
        logs = hyperparameter_logs(self.hyperparameters)
        names = *method.log_names, *self.objective.log_names
        logs |= dict.fromkeys(names, float("nan"))
        self.outer = rounds.Outer(
            lambda start: distribute_outer(self, feed(start)), logs, feed.recent
        )
        idle = IdleFit(self, epochs - kwargs.get("initial_epoch", 0))
        try:
            history = super().fit(
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                validation_data=validation_data,
                sample_weight=sample_weight,
                callbacks=with_fit_callback(callbacks),
                **kwargs,
            )
        finally:
            self.outer.release()
        # Keras does this only for the optimizer of the weights.
        self.network.response_optimizer.finalize_variable_values(
            self.network.response_variables
        )
        idle.warn()
        return history

    def evaluate_objective(
        self, x: Any, y: Any = None, sample_weight: Any = None
    ) -> float:
        """Return Q, by which hyperparameters are judged, on all given data at once.

        Args:
            x: Inputs, `[n, ...]` each, of the data that the objective is judged on:
                validation data for `ValidationLoss`, otherwise the training data.
            y: Targets, `[n, ...]`. Defaults to `None`.
            sample_weight: Weights of the examples, `[n]`. Defaults to `None`.

        Returns:
            A float; the smaller, the better.

        Raises:
            ValueError: If the model is not compiled, or the objective cannot take these
                data.

        Example:

        >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
        >>> inputs = keras.Input((3,))
        >>> layer = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))
        >>> model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
        >>> model.compile("sgd", loss="mse")
        >>> layer.set_weights([np.zeros((3, 1)), np.zeros(1), *layer.get_weights()[2:]])
        >>> model.evaluate_objective(np.ones((4, 3)), np.full((4, 1), 2.0))
        4.0
        """
        _keras.check_compiled(self, "evaluate_objective")
        data = x, y, sample_weight
        if self.objective.judged_on == "training":
            data = self.objective.prepare(self.network, *data)
        data = keras.tree.map_structure(
            lambda array: None if array is None else tf.convert_to_tensor(array), data
        )
        problem = self.network.problem(None, data)
        with _keras.leave_strategy():
            return float(problem.outer_loss(problem.weights, problem.hyperparameters))
