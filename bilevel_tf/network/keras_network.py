"""A Keras model as a `Network`."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.pass_in_force import begin_pass, current_pass
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.variational.variational_layer import VariationalLayer
from bilevel_tf.network.network import Network
from bilevel_tf.network.output_heads import output_heads
from bilevel_tf.network.output_parts import split_by_output
from bilevel_tf.optimizers.following import copy_beside
from bilevel_tf.optimizers.tuned import TunedOptimizer


class KerasNetwork(Network):
    """The `Network` of a `BilevelModel`, which methods and objectives see.

    All state is in the model; this object only gives access to it. `Network` documents
    the members.

    Args:
        model: The `BilevelModel`.
    """

    def __init__(self, model: keras.Model):
        self._model = model

    # What there is

    @property
    def compiled(self) -> bool:
        return self._model.compiled

    @property
    def hyperparameters(self) -> HyperparameterSpace:
        return self._model.hyperparameters

    @property
    def method(self) -> Any:
        return self._model.method

    @property
    def objective(self) -> Any:
        return self._model.objective

    @property
    def layers(self) -> list[keras.Layer]:
        return _keras.flatten_layers(self._model)

    @property
    def weights(self) -> list[keras.Variable]:
        return self._model.trainable_variables

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        return self._model.non_trainable_variables

    @property
    def inputs(self) -> Any:
        return _keras.get_graph_inputs(self._model)

    @property
    def outputs(self) -> Any:
        return _keras.get_graph_outputs(self._model)

    @property
    def output_names(self) -> list[str]:
        return self._model.output_names

    @property
    def losses(self) -> list:
        return self._by_output(self._compiled_with("loss"))

    @property
    def outer_losses(self) -> list:
        given = self._compiled_with("outer_loss")
        return self.losses if given is None else self._by_output(given)

    def _by_output(self, losses):
        return split_by_output(losses, self.outputs, self.output_names)

    @property
    def loss_weights(self) -> Any:
        return self._compiled_with("loss_weights")

    def _compiled_with(self, argument: str) -> Any:
        return _keras.get_compile_arguments(self._model).get(argument)

    @property
    def runs_eagerly(self) -> bool:
        return self._model.run_eagerly

    @property
    def strategy(self) -> tf.distribute.Strategy | None:
        return _keras.get_strategy(self._model)

    @property
    def responding_layers(self) -> list[keras.Layer]:
        return [la for la in self.layers if isinstance(la, HyperLayer) and la.trainable]

    @property
    def response_variables(self) -> list[keras.Variable]:
        layers = self.responding_layers
        return [v for layer in layers for v in layer.response_variables]

    # A pass

    def __call__(self, x: Any, training: bool) -> Any:
        return self._model(x, training=training)

    def compute_loss(
        self, x: Any, y: Any, predictions: Any, sample_weight: Any, training: bool
    ) -> tf.Tensor:
        with contextlib.nullcontext() if training else self._unshown():
            return self._model.compute_loss(
                x, y, predictions, sample_weight, training=training
            )

    def _unshown(self):
        """The losses of single outputs that `fit` shows are those of training alone.

        Keras adds them up whenever a loss is computed.
        """
        several = len(self._model.outputs) > 1
        return _unchanged(self._model.metrics_variables if several else [])

    def compute_outer_loss(
        self, x: Any, y: Any, predictions: Any, sample_weight: Any
    ) -> tf.Tensor:
        with self._unshown():
            return self._model.compute_outer_loss(x, y, predictions, sample_weight)

    def example_weights(self, sample_weight: Any) -> Any:
        return self._model.tuned_weights(sample_weight)

    def added_losses(self) -> list[tf.Tensor]:
        return [loss for layer in self.layers for loss in _keras.get_own_losses(layer)]

    def penalties(self) -> list[tf.Tensor]:
        delta = current_pass().delta
        responding = [] if delta is None else self.responding_layers
        moved = {id(w) for layer in responding for w in layer.responding_weights()}
        stored = [w for w in self.weights if id(w) not in moved]
        fixed = [w.regularizer(w) for w in stored if w.regularizer is not None]
        perturbed = [layer.penalty(delta) for layer in responding]
        return fixed + [tf.reduce_mean(p) for p in perturbed if p is not None]

    def output_heads(self) -> tuple[list[Callable], frozenset]:
        return output_heads(self._model.outputs)

    @contextlib.contextmanager
    def frozen_state(self) -> Iterator[None]:
        variables = [*self.response_variables, *self.hyperparameters.variables]
        ours = {id(v) for v in variables}
        kept = [v for v in self._model.non_trainable_weights if id(v) not in ours]
        with _unchanged([*kept, *self._model.metrics_variables]):
            yield

    def single_precision(self) -> contextlib.AbstractContextManager:
        layers = _keras.flatten_layers(self._model, include_self=True)
        return _keras.in_single_precision(layers)

    @contextlib.contextmanager
    def at(
        self,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        **attributes: Any,
    ) -> Iterator[None]:
        variables = [*self.weights, self.hyperparameters.unconstrained]
        mapping = list(zip(variables, [*weights, *hyperparameters], strict=True))
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
            attributes.setdefault("current", self.hyperparameters.current_at_once())
            with begin_pass(**attributes), self.single_precision():
                yield

    @property
    def penalized(self) -> bool:
        return any(v.regularizer is not None for v in self.weights) or any(
            layer.activity_regularizer is not None
            or isinstance(layer, VariationalLayer)
            # It may call `add_loss`.
            or not type(layer).__module__.startswith(("keras.", "bilevel_tf."))
            for layer in self.layers
        )

    # Optimizers

    @property
    def optimizer(self) -> Any:
        return self._model.optimizer

    @property
    def stepping_optimizer(self) -> Any:
        return self._model.stepping_optimizer

    @property
    def response_optimizer(self) -> Any:
        return self._model.response_optimizer

    @property
    def hyper_optimizer(self) -> Any:
        return self._model.hyper_optimizer

    @property
    def objective_optimizer(self) -> Any:
        return keras_optimizer(self.objective_stepping_optimizer)

    @property
    def objective_stepping_optimizer(self) -> Any:
        return self._model.objective_stepping_optimizer

    def add_optimizer(
        self, variables: list[keras.Variable], weights: list[keras.Variable]
    ) -> None:
        self._model.objective_stepping_optimizer = copy_beside(
            self.stepping_optimizer, variables, weights, self.hyperparameters
        )

    # State

    def add_state(self, name: str, shape: tuple, dtype: str) -> keras.Variable:
        if name in self._model.network_state:
            raise ValueError(
                f"The model already has a variable '{name}' of a method or objective. "
                f"Choose another name. Received: name='{name}'"
            )
        variable = keras.Variable("zeros", shape, dtype, trainable=False, name=name)
        self._model.network_state[name] = variable
        return variable

    def state(self, name: str) -> keras.Variable:
        return self._model.network_state[name]


@contextlib.contextmanager
def _unchanged(variables: list[keras.Variable]) -> Iterator[None]:
    """Give variables back the values that they have before the block."""
    before = [tf.identity(v.value) for v in variables]
    yield
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)


def keras_optimizer(optimizer: Any) -> Any:
    """Return the Keras optimizer of a `TunedOptimizer`, or any other as it is."""
    return optimizer.optimizer if isinstance(optimizer, TunedOptimizer) else optimizer
