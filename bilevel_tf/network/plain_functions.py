"""The losses of a network as plain functions of its weights and hyperparameters."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.network.composed_loss import ComposedLoss
from bilevel_tf.network.example_factors import weigh_examples
from bilevel_tf.network.problem import Problem


class PlainFunctions:
    """What `Network` derives from its abstract members: losses without side effects.

    Every function takes the values of weights and hyperparameters as arguments, changes
    no variable, and uses the same random numbers at every call.
    """

    def loss(
        self,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
        training: bool,
        penalties: bool = True,
    ) -> tf.Tensor:
        """The compiled loss of a batch and what layers and regularizers add to it.

        Args:
            weights: Values of `weights`.
            hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
            batch: x, y and sample weights.
            training: As in Keras.
            penalties: Whether weight penalties count. Defaults to `True`.

        Returns:
            A scalar.
        """
        x, y, sample_weight = batch
        with self.at(weights, hyperparameters, penalties=penalties):
            outputs = self(x, training=training)
            return self.compute_loss(x, y, outputs, sample_weight, training=training)

    def predict(
        self,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
        training: bool = True,
    ) -> Any:
        """The outputs for a batch; arguments as for `loss`."""
        with self.at(weights, hyperparameters):
            return self(batch[0], training=training)

    def data_loss(
        self,
        outputs: Any,
        hyperparameters: list[tf.Tensor],
        batch: tuple,
        factors: tf.Tensor | None = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The compiled loss at given outputs, with nothing added to it.

        Args:
            outputs: Structured as `outputs`.
            hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
            batch: x, y and sample weights.
            factors: Factors of the examples' losses, `[batch]`. Defaults to `None`:
                all one.
            training: Whether tuned example weights count. Defaults to `True`.

        Returns:
            A scalar.
        """
        x, y, weight = batch
        with self.at(self.weights, hyperparameters, losses=()):
            if all(loss is None for loss in self.losses):
                return tf.zeros([], keras.config.floatx())
            if factors is not None:
                tuned = self.example_weights(weight) if training else weight
                if tuned is not weight:
                    weight, factors = None, tuned * factors
                weight = weigh_examples(self, y, outputs, weight, factors)
            return self.compute_loss(x, y, outputs, weight, training=training)

    def penalty(
        self,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """What layers and regularizers add to the training loss, a scalar."""
        with self.at(weights, hyperparameters):
            self(batch[0], training=True)
            terms = [*self.added_losses(), *self.penalties()]
            zero = tf.zeros([], keras.config.floatx())
            return tf.add_n([tf.reduce_sum(term) for term in terms]) if terms else zero

    def example_losses(
        self,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
        training: bool = True,
    ) -> tf.Tensor:
        """The loss of every example.

        Args:
            weights: Values of `weights`.
            hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
            batch: x, y and sample weights.
            training: As in Keras. Defaults to `True`: each loss then has the whole
                penalty, so that their mean is the training loss.

        Returns:
            A tensor `[batch]`.

        Raises:
            ValueError: If a loss is not a sum or a plain mean over examples.
        """
        for loss in self.losses:
            reduction = getattr(loss, "reduction", "sum_over_batch_size")
            if reduction not in ("sum_over_batch_size", "mean", "sum"):
                raise ValueError(
                    "The losses of single examples need `loss` to be a sum or a mean "
                    "over examples; use reduction='sum_over_batch_size'. Received: "
                    f"{type(loss).__name__} with reduction={reduction!r}"
                )
        # Keras's mean is linear in the weights of the examples.
        count = tf.shape(keras.tree.flatten(batch[0])[0])[0]
        outputs = self.predict(weights, hyperparameters, batch, training)
        ones = tf.ones([count], keras.config.floatx())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(ones)
            mean = self.data_loss(outputs, hyperparameters, batch, ones, training)
        shares = tape.gradient(mean, ones, unconnected_gradients="zero")
        losses = tf.cast(count, mean.dtype) * tf.cast(shares, mean.dtype)
        if training and self.penalized:
            losses += self.penalty(weights, hyperparameters, batch)
        return losses

    def problem(self, training: tuple | None, outer: tuple | None) -> Problem:
        """The bilevel problem of the objective at the current point.

        Its steps are those of the optimizer that trains, from its current slots.

        Args:
            training: x, y and sample weights of training batches, stacked along a new
                first axis: step t takes batch t. `None` if nobody will ask for the
                inner loss.
            outer: x, y and sample weights of the batch on which the objective is taken;
                `None` if nobody will ask for the outer loss.
        """
        objective, space = self.objective, self.hyperparameters

        def batch(step):
            return keras.tree.map_structure(
                lambda array: None if array is None else array[step], training
            )

        def inner_loss(weights, hyperparameters, step):
            return objective.inner_loss(self, weights, hyperparameters, batch(step))

        def outer_loss(weights, hyperparameters):
            return objective.outer_loss(self, weights, hyperparameters, outer)

        return Problem(
            inner_loss,
            outer_loss,
            objective.variables(self),
            [space.unconstrained],
            optimizer=objective.optimizer(self),
            resumes=True,
            packed=lambda h: space.constrain(h[0]),
            names=["space"],
            keeps_unused=True,
            **(self._in_parts(lambda: batch(0)) if objective.composed else {}),
        )

    def _in_parts(self, batch):
        """The training loss in its parts, and per example, for curvature methods."""

        def penalty(weights, hyperparameters):
            return self.penalty(weights, hyperparameters, batch())

        return {
            "parts": ComposedLoss(
                lambda w, h: self.predict(w, h, batch()),
                lambda outputs, h: self.data_loss(outputs, h, batch()),
                penalty if self.penalized else None,
            ),
            "example_losses": lambda w, h: self.example_losses(w, h, batch()),
        }
