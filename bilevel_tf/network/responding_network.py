"""The calls of a Keras model whose layers respond to hyperparameters."""

from typing import Any

import tensorflow as tf

from bilevel_tf.hyperparameters.pass_in_force import begin_pass, current_pass


class RespondingNetwork:
    """Mixin for a Keras model: predictions at its own λ and at others.

    The model has a `HyperparameterSpace` in `hyperparameters`, a `KerasNetwork` in
    `network`, and in `method` the method that it is compiled with, or `None`.
    """

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None, **kwargs: Any
    ) -> Any:
        """Run the network under the pass in force or, if there is none, at its own λ.

        Args:
            inputs: Tensors structured as the inputs of the model, `[batch, ...]` each.
            training: As in Keras. Defaults to `None`.
            mask: As in Keras. Defaults to `None`.
            **kwargs: Further call arguments of a functional Keras model.

        Returns:
            Tensors structured as the outputs of the model.
        """
        arguments = {"training": training, "mask": mask, **kwargs}
        if current_pass().begun or self.method is None:
            return super().call(inputs, **arguments)
        delta = self.method.prediction_delta(self.hyperparameters)
        current = self.hyperparameters.current_at_once()
        with begin_pass(delta=delta, current=current):
            return super().call(inputs, **arguments)

    def call_at(self, inputs: Any, hyperparameters: dict[str, Any]) -> Any:
        """Predict at other hyperparameters, through the best response.

        The result approximates what the network would predict if it had been trained
        with these hyperparameters. The approximation is of first order in the distance
        from the present values on the unconstrained scale.

        Args:
            inputs: Tensors or arrays structured as the inputs of the model,
                `[batch, ...]` each.
            hyperparameters: Dict from names to values on the constrained scale, each of
                the shape of its hyperparameter. Hyperparameters that are left out keep
                their present values.

        Returns:
            Tensors structured as the outputs of the model, in inference mode.

        Raises:
            RuntimeError: If the model has no response. `compile` attaches one if the
                method fits one.
            ValueError: If a name is unknown or a value is outside its range.

        Example:

        >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
        >>> inputs = keras.Input((3,))
        >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        >>> model.compile("sgd", loss="mse", method=bt.DeltaSTN())
        >>> model.call_at(np.ones((2, 3), "float32"), {"l2": 0.5}).shape
        TensorShape([2, 1])
        """
        if not self.has_response or not self.network.response_variables:
            raise RuntimeError(
                "The model has no best response: compile it with a method that fits "
                "one, such as bilevel_tf.DeltaSTN(), and fit it. "
                f"Received: method={type(self.method).__name__}"
            )
        space = self.hyperparameters
        space.check_names(hyperparameters)
        for name, value in hyperparameters.items():
            if not tf.is_symbolic_tensor(value):
                space.scales[name].check_value(value, name)
        return self.call_at_unconstrained(inputs, space.unconstrain(hyperparameters))

    def call_at_unconstrained(self, inputs: Any, unconstrained: tf.Tensor) -> Any:
        """Predict at other hyperparameters, given by their unconstrained form.

        Args:
            inputs: Tensors structured as the inputs of the model, `[batch, ...]` each.
            unconstrained: Vector `[h]`, as `HyperparameterSpace.unconstrain` returns.

        Returns:
            Tensors structured as the outputs of the model, in inference mode.
        """
        space, delta = self.hyperparameters, unconstrained
        if self.method.centered:
            delta -= space.unconstrained
        with begin_pass(delta=delta[None], current=space.current_at_once()):
            return self(inputs, training=False)

    @property
    def has_response(self) -> bool:
        """Whether the method fits a best response.

        Layers keep responses that a former method has fitted.
        """
        return hasattr(self.method, "centered")

    @property
    def losses(self) -> list[tf.Tensor]:
        """Scalars that layers and weight penalties add under the pass in force."""
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
