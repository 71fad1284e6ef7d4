"""A Keras model as a bilevel problem in plain functions."""

import keras

from bilevel_tf.network.composed_loss import ComposedLoss
from bilevel_tf.network.problem import Problem
from bilevel_tf.network.stateless_model import StatelessModel
from bilevel_tf.objectives.objective import Objective


def model_problem(model, training, outer):
    """The `Problem` of a model's current weights and hyperparameters.

    L and Q are those of the model's objective, through a `StatelessModel`. Steps are
    those of the optimizer that trains, from its current slots.

    Args:
        model: A compiled `BilevelModel`.
        training: x, y and sample weights of training batches, stacked along a new
            first axis; step t uses batch t.
        outer: x, y and sample weights of the batch that Q is taken on.
    """
    objective, space = model.objective, model.hyperparameters
    network = StatelessModel(model)

    def batch(step):
        return keras.tree.map_structure(
            lambda array: None if array is None else array[step], training
        )

    def inner_loss(weights, hyperparameters, step):
        return objective.inner_loss(network, weights, hyperparameters, batch(step))

    def outer_loss(weights, hyperparameters):
        return objective.outer_loss(network, weights, hyperparameters, outer)

    known = type(objective).inner_loss is Objective.inner_loss
    return Problem(
        inner_loss,
        outer_loss,
        objective.variables(model),
        [space.unconstrained],
        optimizer=objective.optimizer(model),
        resumes=True,
        packed=lambda h: space.constrain(h[0]),
        names=["space"],
        **(_in_detail(network, lambda: batch(0)) if known else {}),
    )


def _in_detail(network, batch):
    """The training loss in its parts, and per example, for the curvature methods."""

    def penalty(weights, hyperparameters):
        return network.penalty(weights, hyperparameters, batch())

    return {
        "parts": ComposedLoss(
            lambda w, h: network.predict(w, h, batch()),
            lambda outputs, h: network.data_loss(outputs, h, batch()),
            penalty if network.penalized else None,
        ),
        "example_losses": lambda w, h: network.example_losses(w, h, batch()),
    }
