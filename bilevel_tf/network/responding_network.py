"""The calls of a Keras model whose layers respond to hyperparameters."""

import tensorflow as tf

from bilevel_tf.hyperparameters.pass_in_force import begin_pass, current_pass


class RespondingNetwork:
    """Mixin for a Keras model: calls of it at its own λ and at others.

    The model has a `HyperparameterSpace` in `hyperparameters`, a `KerasNetwork` in
    `network`, and in `method` the method that it is compiled with, or `None`.
    """

    def call(self, inputs, training=None, mask=None, **kwargs):
        """Run the network under the pass in force, or at its own λ."""
        arguments = {"training": training, "mask": mask, **kwargs}
        if current_pass().begun or self.method is None:
            return super().call(inputs, **arguments)
        delta = self.method.prediction_delta(self.hyperparameters)
        with begin_pass(delta=delta):
            return super().call(inputs, **arguments)

    def call_at(self, inputs, hyperparameters):
        """Predict at other hyperparameters, through the best response.

        What would the network predict if it had been trained with these? The answer is
        of first order in the distance from the current values, on the unconstrained
        scale.

        Args:
            inputs: As for a call of the model.
            hyperparameters: Dict from names to values on the constrained scale.
                Hyperparameters that are left out keep their current values.

        Returns:
            The outputs of the model in inference mode.

        Raises:
            RuntimeError: If the model has no response. `compile` attaches one if the
                method fits one.
            ValueError: If a name is unknown or a value is outside its range.
        """
        if not self.network.response_variables:
            raise RuntimeError(
                "The model has no best response: compile it with a method that fits "
                "one, such as bilevel_tf.DeltaSTN(), and fit it."
            )
        space = self.hyperparameters
        space.check_names(hyperparameters)
        for name, value in hyperparameters.items():
            if not tf.is_symbolic_tensor(value):
                space.scales[name].check_value(value, name)
        delta = space.unconstrain(hyperparameters)
        if self.method.centered:
            delta -= space.unconstrained
        with begin_pass(delta=delta[None]):
            return self(inputs, training=False)

    @property
    def losses(self):
        """What layers and weight penalties add, as the pass in force asks for it."""
        asked = current_pass()
        if not asked.begun:
            return super().losses
        if asked.losses is not None:
            return list(asked.losses)
        if not asked.penalties:
            return self.network.added_losses()
        if asked.delta is None:
            return super().losses
        return [*self.network.added_losses(), *self.network.penalties()]
