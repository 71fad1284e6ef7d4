"""Hypergradients of plain functions, without a Keras model."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.autodiff.solution import Status
from bilevel_tf.methods.differentiating import Differentiating
from bilevel_tf.methods.real_numbers import check_real, explain_dtypes
from bilevel_tf.network.composed_loss import ComposedLoss
from bilevel_tf.network.problem import Hypergradient, Problem
from bilevel_tf.optimizers.tuned import TunedOptimizer


def hypergradient(
    inner_loss: Callable,
    outer_loss: Callable,
    weights: Any,
    hyperparameters: Any,
    method: Differentiating,
    optimizer: keras.Optimizer | TunedOptimizer | None = None,
) -> Hypergradient:
    """dQ/dλ of plain functions, by any of the methods that differentiate training.

    Works eagerly and inside `tf.function`, with and without XLA.

    If a solver breaks down when running eagerly (H is not positive definite or
    singular, a series diverges, a number is not finite), it warns and says what to do.
    It does not warn if it only runs out of iterations, because methods are made to
    stop early. Nothing warns in a graph. The report always has the status.

    Args:
        inner_loss: L, the loss that trains the weights: a function of weights and
            hyperparameters, structured as given here. It returns a scalar, or one loss
            per example, `[n]`, whose mean is taken. If it has a third argument without
            a default, it also gets the number of the step, an int32 scalar, by which it
            can choose its batch.
        outer_loss: Q, the loss that judges hyperparameters: a function of weights and
            hyperparameters that returns a scalar.
        weights: Structure (list, dict, …) of tensors or variables. An implicit method
            differentiates there, and a trajectory starts there. If the start of a
            trajectory depends on the hyperparameters, give a function of these that
            returns such a structure.
        hyperparameters: λ, a structure of tensors or variables.
        method: A method object, such as `bilevel_tf.Neumann(20)`.
        optimizer: A Keras optimizer or a `TunedOptimizer`, for methods that follow its
            steps. It is not changed: steps are taken on copies of the weights, from
            fresh slots. Defaults to `None`.

    Returns:
        A `Hypergradient`: `gradients` structured as `hyperparameters`, `outer_loss`,
        `weights` at which Q was taken, and a `report` of how the method fared.

    Raises:
        TypeError: If `method` fits a best response, which needs a `BilevelModel`.
        ValueError: If the inner loss does not depend on some weight, neither loss
            depends on some hyperparameter, a loss fails on weights and hyperparameters
            of different dtypes, or `optimizer` was made inside a `tf.function`.

    Warns:
        RuntimeWarning: When running eagerly, if the method broke down.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³.

    >>> h = tf.Variable(1.0, dtype=tf.float64)
    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64), hyperparameters=h,
    ...     method=bt.methods.ExactImplicit())
    >>> float(result.gradients)
    -0.25
    >>> float(h.assign_sub(2.0 * result.gradients))
    1.5
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
    with explain_dtypes(problem):
        found = method.hypergradient(problem)
    if tf.executing_eagerly():
        _warn_of_breakdown(method, found.report)
    packed_weights, gradients = pack(found.weights, found.gradients)
    return found._replace(gradients=gradients, weights=packed_weights)


def _warn_of_breakdown(method, report):
    status = Status(int(report["status"]))
    if not status.usable:
        warnings.warn(
            f"{type(method).__name__}: {status.name}. {status.explain()}",
            RuntimeWarning,
            stacklevel=3,
        )


def structured_problem(
    inner_loss: Callable,
    outer_loss: Callable,
    weights: Any,
    hyperparameters: Any,
    optimizer: keras.Optimizer | TunedOptimizer | None,
) -> tuple[Problem, Callable]:
    """A `Problem` of functions of structures, for the arguments of `hypergradient`.

    Returns:
        The problem, and a function that packs flat lists of weights (or `None`) and
        hyperparameters into the structures that were given.
    """
    for name, loss in (("inner_loss", inner_loss), ("outer_loss", outer_loss)):
        if not callable(loss):
            raise TypeError(
                f"`{name}` must be a function of weights and hyperparameters. "
                f"Received: {name}={loss!r}"
            )
    check_real("hyperparameters", hyperparameters)
    start = None
    if callable(weights):
        start, weights = weights, weights(hyperparameters)

    check_real("weights", weights)

    def pack(flat_weights, flat_hyperparameters):
        return (
            flat_weights and _pack_like(weights, flat_weights),
            _pack_like(hyperparameters, flat_hyperparameters),
        )

    parts = None
    if isinstance(inner_loss, ComposedLoss):
        parts = inner_loss.on_lists(pack)
    problem = Problem(
        parts or _put_on_lists(inner_loss, pack),
        lambda w, h: outer_loss(*pack(w, h)),
        tf.nest.flatten(weights),
        tf.nest.flatten(hyperparameters),
        start=start and (lambda h: tf.nest.flatten(start(pack(None, h)[1]))),
        optimizer=optimizer,
        parts=parts,
        packed=lambda h: pack(None, h)[1],
    )
    return problem, pack


def _pack_like(like, flat):
    return tf.nest.pack_sequence_as(like, flat)


def _put_on_lists(loss, pack):
    """Make of an inner loss of structures one of flat lists and a step."""
    takes_step = _takes_step(loss)

    def function(weights, hyperparameters, step):
        return loss(*pack(weights, hyperparameters), *([step] if takes_step else []))

    return function


def _takes_step(loss):
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(loss).parameters.values()
    given = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    return len(given) >= 3
