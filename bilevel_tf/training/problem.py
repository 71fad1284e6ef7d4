"""A Keras model as a bilevel problem in plain functions."""

import contextlib

import keras
import tensorflow as tf

from bilevel_tf.hypergradients.curvature import ComposedLoss
from bilevel_tf.hypergradients.problem import Problem
from bilevel_tf.hyperparameters import perturbation


def model_problem(model, training, validation):
    """The `Problem` of a model's current weights and hyperparameters.

    The losses are those of `fit`: L the training loss with weight penalties, in
    training mode, Q the loss on the validation batch without, in inference mode. Masks
    and noise are the same in every call of L. Steps are those of the model's optimizer
    from its current slots. What a call does to batch statistics
    and random seeds is dropped.

    Args:
        model: A compiled `BilevelModel`.
        training: x, y and sample weights of training batches, stacked along a new
            first axis; step t uses batch t.
        validation: x, y and sample weights of a validation batch.
    """
    space = model.hyperparameters
    variables = [*model.trainable_variables, space.unconstrained]

    @contextlib.contextmanager
    def at(weights, hyperparameters, **scope):
        values = [*weights, *hyperparameters]
        mapping = list(zip(variables, values, strict=True))
        with (
            keras.StatelessScope(state_mapping=mapping, collect_losses=True),
            perturbation.scope(**scope),
        ):
            yield

    def batch(step):
        return keras.tree.map_structure(
            lambda array: None if array is None else array[step], training
        )

    def predict(weights, hyperparameters, step=0):
        with at(weights, hyperparameters):
            return model(batch(step)[0], training=True)

    def data_loss(outputs, hyperparameters, example_weights=None):
        x, y, weight = batch(0)
        if example_weights is not None:
            weight = example_weights if weight is None else weight * example_weights
        with at(model.trainable_variables, hyperparameters, losses=()):
            return model.compute_loss(x, y, outputs, weight, training=True)

    def penalty(weights, hyperparameters):
        with at(weights, hyperparameters):
            model(batch(0)[0], training=True)
            return tf.add_n(model.losses)

    def example_losses(weights, hyperparameters):
        # What Keras reduces to a mean is linear in the examples' weights.
        count = tf.shape(keras.tree.flatten(batch(0)[0])[0])[0]
        ones = tf.ones([count], model.compute_dtype)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(ones)
            outputs = predict(weights, hyperparameters)
            mean = data_loss(outputs, hyperparameters, ones)
        losses = tf.cast(count, mean.dtype) * tape.gradient(mean, ones)
        return losses + (penalty(weights, hyperparameters) if penalized else 0.0)

    def inner_loss(weights, hyperparameters, step):
        x, y, weight = batch(step)
        with at(weights, hyperparameters):
            outputs = model(x, training=True)
            return model.compute_loss(x, y, outputs, weight, training=True)

    def outer_loss(weights, hyperparameters):
        x, y, weight = validation
        with at(weights, hyperparameters, penalties=False):
            outputs = model(x, training=False)
            return model.compute_loss(x, y, outputs, weight, training=False)

    penalized = any(v.regularizer is not None for v in model.trainable_variables)
    penalized = penalized or any(la.activity_regularizer for la in model.layers)
    return Problem(
        inner_loss,
        outer_loss,
        model.trainable_variables,
        [space.unconstrained],
        optimizer=model.stepping_optimizer,
        resumes=True,
        packed=lambda h: space.constrain(h[0]),
        parts=ComposedLoss(predict, data_loss, penalty if penalized else None),
        example_losses=example_losses,
        names=["space"],
    )
