"""Hypergradients of plain functions, without a Keras model."""

import inspect

import tensorflow as tf

from bilevel_tf.methods.differentiating import Differentiating
from bilevel_tf.network.composed_loss import ComposedLoss
from bilevel_tf.network.problem import Problem


def hypergradient(
    inner_loss, outer_loss, weights, hyperparameters, method, optimizer=None
):
    """dQ/dλ of plain functions, by any of the methods that differentiate training.

    Works eagerly and inside `tf.function`, with and without XLA.

    Args:
        inner_loss: L, what trains the weights: a function of weights and
            hyperparameters, structured as given here, that returns a scalar, or one
            loss per example, whose mean is taken. With a third argument it gets the
            number of the step, an int32 scalar, by which it can choose its batch.
        outer_loss: Q, what hyperparameters are judged by: a function of both that
            returns a scalar.
        weights: Structure (list, dict, …) of tensors or variables: where an implicit
            method differentiates, and where a trajectory starts. A function of the
            hyperparameters that returns one makes the start of a trajectory depend on
            them.
        hyperparameters: Structure of tensors or variables.
        method: A method object, such as `bilevel_tf.Neumann(20)`.
        optimizer: A Keras optimizer, or a `TunedOptimizer`, for methods that follow
            its steps. It is left as it is: steps are taken on copies of the weights,
            from fresh slots.

    Returns:
        A `Hypergradient`: `gradients` structured as `hyperparameters`, `outer_loss`,
        `weights` that Q was taken at, and a `report` of how the method fared.

    Raises:
        TypeError: If `method` fits a best response, which needs a `BilevelModel`.
        ValueError: If weights are not in the inner loss, or hyperparameters in
            neither.

    Example:

    >>> result = bt.hypergradient(
    ...     lambda w, h: tf.reduce_mean((x @ w - y) ** 2) + h * tf.reduce_sum(w**2),
    ...     lambda w, h: tf.reduce_mean((x_valid @ w - y_valid) ** 2),
    ...     weights=w, hyperparameters=h, method=bt.methods.ExactImplicit())
    >>> h.assign_sub(0.1 * result.gradients)
    """
    if not isinstance(method, Differentiating):
        raise TypeError(
            "`method` must be one that differentiates training, such as "
            "bilevel_tf.Neumann() or bilevel_tf.ConjugateGradient(). Those that fit a "
            f"best response need a BilevelModel. Received: method={method!r}"
        )
    problem, pack = structured_problem(
        inner_loss, outer_loss, weights, hyperparameters, optimizer
    )
    found = method.hypergradient(problem)
    packed_weights, gradients = pack(found.weights, found.gradients)
    return found._replace(gradients=gradients, weights=packed_weights)


def structured_problem(inner_loss, outer_loss, weights, hyperparameters, optimizer):
    """A `Problem` of functions of structures; see `hypergradient`.

    Returns:
        The problem, and a function that makes of flat lists of weights (or `None`) and
        hyperparameters the structures that were given.
    """
    start = None
    if callable(weights):
        start, weights = weights, weights(hyperparameters)

    def pack(flat_weights, flat_hyperparameters):
        return (
            flat_weights and _packed(weights, flat_weights),
            _packed(hyperparameters, flat_hyperparameters),
        )

    parts = None
    if isinstance(inner_loss, ComposedLoss):
        parts = inner_loss.on_lists(pack)
    problem = Problem(
        parts or _on_lists(inner_loss, pack),
        lambda w, h: outer_loss(*pack(w, h)),
        tf.nest.flatten(weights),
        tf.nest.flatten(hyperparameters),
        start=start and (lambda h: tf.nest.flatten(start(pack(None, h)[1]))),
        optimizer=optimizer,
        parts=parts,
        packed=lambda h: pack(None, h)[1],
    )
    return problem, pack


def _packed(like, flat):
    return tf.nest.pack_sequence_as(like, flat)


def _on_lists(loss, pack):
    """An inner loss of structures as one of flat lists and a step."""
    takes_step = _takes_step(loss)

    def function(weights, hyperparameters, step):
        return loss(*pack(weights, hyperparameters), *([step] if takes_step else []))

    return function


def _takes_step(loss):
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(loss).parameters.values()
    given = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    return len(given) >= 3
