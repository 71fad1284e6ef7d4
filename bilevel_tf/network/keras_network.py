"""A Keras model as a `Network`."""

import contextlib

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.pass_in_force import begin_pass, current_pass
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.variational.variational_layer import VariationalLayer
from bilevel_tf.network.network import Network
from bilevel_tf.network.output_heads import output_heads
from bilevel_tf.optimizers.following import beside
from bilevel_tf.optimizers.tuned import TunedOptimizer


class KerasNetwork(Network):
    """What methods and objectives see of a `BilevelModel`.

    The model keeps everything; this object only gives access to it.

    Args:
        model: The `BilevelModel`.
    """

    def __init__(self, model):
        self._model = model

    # What there is

    @property
    def compiled(self):
        return self._model.compiled

    @property
    def hyperparameters(self):
        return self._model.hyperparameters

    @property
    def method(self):
        return self._model.method

    @property
    def objective(self):
        return self._model.objective

    @property
    def layers(self):
        return list(self._model._flatten_layers(include_self=False))

    @property
    def weights(self):
        return self._model.trainable_variables

    @property
    def non_trainable_variables(self):
        return self._model.non_trainable_variables

    @property
    def inputs(self):
        return self._model._inputs_struct

    @property
    def outputs(self):
        return self._model._outputs_struct

    @property
    def output_names(self):
        return self._model.output_names

    @property
    def losses(self):
        return losses_by_output(self._model)

    @property
    def loss_weights(self):
        return self._model._compile_config.config.get("loss_weights")

    @property
    def distributed(self):
        return self._model._distribute_strategy is not None

    @property
    def responding_layers(self):
        return [la for la in self.layers if isinstance(la, HyperLayer) and la.trainable]

    @property
    def response_variables(self):
        layers = self.responding_layers
        return [v for layer in layers for v in layer.response_variables]

    # A pass

    def __call__(self, x, training):
        return self._model(x, training=training)

    def compute_loss(self, x, y, predictions, sample_weight, training):
        return self._model.compute_loss(
            x, y, predictions, sample_weight, training=training
        )

    def example_weights(self, sample_weight):
        return self._model.weights_in_force(sample_weight)

    def added_losses(self):
        return [loss for layer in self.layers for loss in layer._get_own_losses()]

    def penalties(self):
        delta = current_pass().delta
        responding = [] if delta is None else self.responding_layers
        moved = {id(w) for layer in responding for w in layer.responding_weights()}
        stored = [w for w in self.weights if id(w) not in moved]
        fixed = [w.regularizer(w) for w in stored if w.regularizer is not None]
        perturbed = [layer.penalty(delta) for layer in responding]
        return fixed + [tf.reduce_mean(p) for p in perturbed if p is not None]

    def output_heads(self):
        return output_heads(self._model.outputs)

    @contextlib.contextmanager
    def frozen_state(self):
        ours = [*self.response_variables, *self.hyperparameters.variables]
        ours = {id(v) for v in ours}
        kept = [v for v in self._model.non_trainable_weights if id(v) not in ours]
        before = [tf.identity(v.value) for v in kept]
        yield
        for variable, value in zip(kept, before, strict=True):
            variable.assign(value)

    @contextlib.contextmanager
    def at(self, weights, hyperparameters, **attributes):
        variables = [*self.weights, self.hyperparameters.unconstrained]
        mapping = list(zip(variables, [*weights, *hyperparameters], strict=True))
        with (
            keras.StatelessScope(state_mapping=mapping, collect_losses=True),
            begin_pass(**attributes),
        ):
            yield

    @property
    def penalized(self):
        return any(v.regularizer is not None for v in self.weights) or any(
            layer.activity_regularizer is not None
            or isinstance(layer, VariationalLayer)
            for layer in self.layers
        )

    # Optimizers

    @property
    def optimizer(self):
        return self._model.optimizer

    @property
    def stepping_optimizer(self):
        return self._model.stepping_optimizer

    @property
    def response_optimizer(self):
        return self._model.response_optimizer

    @property
    def hyper_optimizer(self):
        return self._model.hyper_optimizer

    @property
    def objective_optimizer(self):
        return keras_optimizer(self.objective_stepping_optimizer)

    @property
    def objective_stepping_optimizer(self):
        return self._model.objective_stepping_optimizer

    def add_optimizer(self, variables, weights):
        self._model.objective_stepping_optimizer = beside(
            self.stepping_optimizer, variables, weights, self.hyperparameters
        )

    # State

    def add_state(self, name, shape, dtype):
        if name in self._model.network_state:
            raise ValueError(
                f"The model has a variable '{name}' of a method or objective already. "
                "Choose another name."
            )
        variable = keras.Variable("zeros", shape, dtype, trainable=False, name=name)
        self._model.network_state[name] = variable
        return variable

    def state(self, name):
        return self._model.network_state[name]


def losses_by_output(model):
    """The losses given to `compile`, one per flat output; `None` if it has none."""
    losses, count = model._compile_config.config.get("loss"), len(model.outputs)
    if isinstance(losses, dict):
        keys = model.output_names
        if isinstance(model._outputs_struct, dict):
            order = keras.tree.flatten({k: k for k in model._outputs_struct})
            keys = [k if k in losses else n for k, n in zip(order, keys, strict=True)]
        return [losses.get(key) for key in keys]
    flat = keras.tree.flatten(losses)
    return flat if len(flat) == count else flat[:1] * count or [None] * count


def keras_optimizer(optimizer):
    """The Keras optimizer of a `TunedOptimizer`; any other is returned as it is."""
    return optimizer.optimizer if isinstance(optimizer, TunedOptimizer) else optimizer
