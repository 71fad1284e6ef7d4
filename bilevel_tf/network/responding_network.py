"""The passes through a network whose layers respond to hyperparameters."""

import contextlib

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.pass_in_force import begin_pass, current_pass
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.training import checks


class RespondingNetwork:
    """Mixin for a Keras model: its hyper-layers, its losses, and calls of it at λ.

    The model has a `HyperparameterSpace` in `hyperparameters`, and in `method` the
    method that it is compiled with, or `None`.
    """

    @property
    def hyper_layers(self):
        """The trainable layers whose weights can respond, in order."""
        layers = self._flatten_layers(include_self=False)
        return [la for la in layers if isinstance(la, HyperLayer) and la.trainable]

    @property
    def response_layers(self):
        """All layers that have a response, those that were frozen later as well."""
        layers = self._flatten_layers(include_self=False)
        return [la for la in layers if isinstance(la, HyperLayer) and la.responses]

    @property
    def response_variables(self):
        """The weights of all responses that are trained."""
        trained = [la for la in self.response_layers if la.trainable]
        return [v for layer in trained for v in layer.response_variables]

    def add_method_state(self, name, shape, dtype):
        """A variable of a method or objective, zero at first, saved with the model."""
        variable = keras.Variable("zeros", shape, dtype, trainable=False, name=name)
        self.method_state[name] = variable
        return variable

    def check_penalties_respond(self):
        """Raise where a tuned penalty is on a layer that cannot respond."""
        checks.check_penalties_respond(self)

    def check_factors_scalar(self, method):
        """Raise where a penalty has a factor per weight, which no response takes."""
        checks.check_factors_scalar(self, method)

    def check_optimizer_not_tuned(self, method):
        """Raise where hyperparameters act through the optimizer."""
        checks.check_optimizer_not_tuned(self, method)

    def check_hyperparameters_differentiable(self, method):
        """Raise where a hyperparameter's effect has no derivative."""
        checks.check_hyperparameters_differentiable(self, method)

    def loss_per_output(self):
        """The losses given to `compile`, one per output; `None` where there is none."""
        return checks.loss_per_output(self, self._compile_config.config.get("loss"))

    def check_outputs_linearize(self):
        """Raise where an output's softmax or sigmoid cannot be left out."""
        checks.check_outputs_linearize(self)

    def output_heads(self):
        """What turns linearised outputs into predictions.

        Returns:
            One function per flat output, and the set of layers that must leave out
            their activation for it.
        """
        return checks.output_heads(self)

    @contextlib.contextmanager
    def frozen_state(self):
        """Undo what a pass does to non-trainable state such as batch statistics.

        Batch statistics then come from the passes at λ alone, as they do in Keras;
        random seeds advance.
        """
        ours = [*self.response_variables, *self.hyperparameters.variables]
        ours = {id(v) for v in ours}
        kept = [v for v in self.non_trainable_weights if id(v) not in ours]
        before = [tf.identity(v.value) for v in kept]
        yield
        for variable, value in zip(kept, before, strict=True):
            variable.assign(value)

    def call(self, inputs, training=None, mask=None, **kwargs):
        """The network at the weights of the current scope, else at its own λ."""
        arguments = {"training": training, "mask": mask, **kwargs}
        if current_pass().begun or self.method is None:
            return super().call(inputs, **arguments)
        delta = self.method.prediction_delta(self.hyperparameters)
        with begin_pass(delta=delta):
            return super().call(inputs, **arguments)

    def call_at(self, inputs, hyperparameters):
        """Predict at other hyperparameters, through the best response.

        What would the network predict, had it been trained with these? To first
        order in their distance from the current ones, on the unconstrained scale.

        Args:
            inputs: As for a call of the model.
            hyperparameters: Dict, name to constrained value; those left out keep
                their current value.

        Returns:
            The model's outputs in inference mode.

        Raises:
            RuntimeError: If no response has been attached, by `compile`.
            ValueError: If a name is unknown or a value outside its range.
        """
        checks.check_responds(self)
        space = self.hyperparameters
        checks.check_values(space, hyperparameters)
        delta = space.unconstrain(hyperparameters)
        if self.method.centered:
            delta -= space.unconstrained
        with begin_pass(delta=delta[None]):
            return self(inputs, training=False)

    @property
    def losses(self):
        """Losses that layers add and weight penalties, as the current scope asks."""
        scope = current_pass()
        if not scope.begun:
            return super().losses
        if scope.losses is not None:
            return list(scope.losses)
        if not scope.penalties:
            return self.added_losses()
        if scope.delta is None:
            return super().losses
        return [*self.added_losses(), *self.penalties()]

    def added_losses(self):
        """Losses that layers add on their inputs and outputs."""
        layers = self._flatten_layers()
        return [loss for layer in layers for loss in layer._get_own_losses()]

    def penalties(self):
        """Mean weight penalties under the current scope's perturbation."""
        delta = current_pass().delta
        moved = {id(w) for la in self.hyper_layers for w in la.responding_weights()}
        rest = [w for w in self.trainable_weights if id(w) not in moved]
        penalties = [w.regularizer(w) for w in rest if w.regularizer is not None]
        responding = [layer.penalty(delta) for layer in self.hyper_layers]
        means = [tf.reduce_mean(p) for p in responding if p is not None]
        return penalties + means
