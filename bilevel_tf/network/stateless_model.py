"""A Keras model as plain functions of its weights and hyperparameters."""

import contextlib

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.pass_in_force import begin_pass
from bilevel_tf.layers.variational.variational_layer import VariationalLayer


class StatelessModel:
    """The losses of `fit` as functions of two lists of tensors.

    Masks and noise are the same in every call, and what a call does to batch
    statistics and random seeds is dropped.

    Args:
        model: A compiled `BilevelModel`.
    """

    def __init__(self, model):
        self.model = model
        self.space = model.hyperparameters
        trained = model.trainable_variables
        self._variables = [*trained, self.space.unconstrained]
        self.penalized = any(v.regularizer is not None for v in trained) or any(
            layer.activity_regularizer is not None
            or isinstance(layer, VariationalLayer)
            for layer in model._flatten_layers(include_self=False)
        )

    @contextlib.contextmanager
    def at(self, weights, hyperparameters, **scope):
        """Run what is inside with these values of the trainable variables and of λ.

        Args:
            weights: List of tensors, one per trainable variable.
            hyperparameters: List of one tensor, the unconstrained λ.
            **scope: Of `Pass`.
        """
        values = [*weights, *hyperparameters]
        mapping = list(zip(self._variables, values, strict=True))
        with (
            keras.StatelessScope(state_mapping=mapping, collect_losses=True),
            begin_pass(**scope),
        ):
            yield

    def loss(self, weights, hyperparameters, batch, training, penalties=True):
        """The compiled loss of a batch, and the model's penalties if asked for."""
        x, y, weight = batch
        with self.at(weights, hyperparameters, penalties=penalties):
            outputs = self.model(x, training=training)
            return self.model.compute_loss(x, y, outputs, weight, training=training)

    def predict(self, weights, hyperparameters, batch, training=True):
        """The model's outputs."""
        with self.at(weights, hyperparameters):
            return self.model(batch[0], training=training)

    def data_loss(self, outputs, hyperparameters, batch, factors=None, training=True):
        """The compiled loss at given outputs, without penalties.

        Args:
            factors: Optional factors of the examples' losses, `[batch]`.
        """
        x, y, weight = batch
        trained = self.model.trainable_variables
        with self.at(trained, hyperparameters, losses=()):
            if factors is not None:
                weight = self.model.weights_in_force(weight) if training else weight
                weight = factors if weight is None else weight * factors
            return self.model.compute_loss(x, y, outputs, weight, training=training)

    def penalty(self, weights, hyperparameters, batch):
        """What the layers and regularizers add to the training loss."""
        with self.at(weights, hyperparameters):
            self.model(batch[0], training=True)
            return tf.add_n(self.model.losses)

    def example_losses(self, weights, hyperparameters, batch):
        """The training loss of every example, `[batch]`, each with the penalty."""
        # What Keras reduces to a mean is linear in the examples' weights.
        count = tf.shape(keras.tree.flatten(batch[0])[0])[0]
        ones = tf.ones([count], self.model.compute_dtype)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(ones)
            outputs = self.predict(weights, hyperparameters, batch)
            mean = self.data_loss(outputs, hyperparameters, batch, ones)
        losses = tf.cast(count, mean.dtype) * tape.gradient(mean, ones)
        if self.penalized:
            losses += self.penalty(weights, hyperparameters, batch)
        return losses
