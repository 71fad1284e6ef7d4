"""Hyperparameter optimisation with approximate gradient."""

import typing
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import check_count, check_non_negative, check_positive
from bilevel_tf.autodiff import solvers
from bilevel_tf.autodiff.solution import Status
from bilevel_tf.methods.functional import structured_problem
from bilevel_tf.methods.implicit.conjugate_gradient import ConjugateGradient, damped
from bilevel_tf.methods.implicit.implicit import through_solution
from bilevel_tf.methods.implicit.outer_descent import OuterDescent
from bilevel_tf.network.network import Network
from bilevel_tf.network.problem import Hypergradient, Problem


class HOAGResult(typing.NamedTuple):
    """What `HOAG.minimize` found.

    Attributes:
        hyperparameters: The last accepted ones, structured as given.
        weights: The weights trained at these, structured as given.
        history: NumPy arrays by name, with one entry per outer iteration:

            - "outer_loss": Q;
            - "tolerance": ε_k;
            - "gradient_norm": ‖dQ/dλ‖;
            - "inner_gradient_norm": ‖∂L/∂w‖∞ that L-BFGS reached;
            - "status", "converged", "iterations" and "residual" of the linear solve, as
              in the report of a `Hypergradient`;
            - "step_size": 1 / L;
            - "accepted": whether the step to these hyperparameters was kept.
        status: Why it stopped, a `Status`: `CONVERGED` if the hypergradient fell to
            `outer_tolerance`, otherwise `OUT_OF_ITERATIONS`.
    """

    hyperparameters: typing.Any
    weights: typing.Any
    history: dict[str, np.ndarray]
    status: Status


@keras.saving.register_keras_serializable("bilevel_tf")
class HOAG(ConjugateGradient):
    """Conjugate gradients to a tolerance that tightens, each from the last solution.

    The k-th outer step solves to a relative residual of ε_k = tolerance · decayᵏ: far
    from the optimum a rough hypergradient is enough. In `fit`, the model's optimizer
    trains the weights by `train_steps` steps and the hyper-optimizer moves λ;
    `minimize` is the whole published algorithm on plain functions.

    Args:
        tolerance: ε_0, a relative residual. Defaults to 0.1.
        decay: Factor by which ε_k falls, above 0 and at most 1. Defaults to 0.9, the
            paper's.
        least_tolerance: The value below which ε_k does not fall. Defaults to 1e-6, what
            single precision can reach.
        iterations: Most iterations of one solve. Defaults to 100.
        damping: Number to add to the diagonal of H, in units of loss / weight².
            Defaults to 0.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If there is no argument of that name.

    Reference:
        Pedregosa, "Hyperparameter optimization with approximate gradient", 2016.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³.

    >>> method = bt.methods.HOAG(tolerance=0.1, decay=0.5)
    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=method)
    >>> float(result.gradients)
    -0.25
    >>> [float(method.tolerance_at(step, "float64")) for step in range(3)]
    [0.1, 0.05, 0.025]
    """

    def __init__(
        self,
        tolerance: float = 0.1,
        decay: float = 0.9,
        least_tolerance: float = 1e-6,
        iterations: int = 100,
        damping: float = 0.0,
        **kwargs: Any,
    ):
        tolerance = check_positive(tolerance, "tolerance")
        super().__init__(iterations, tolerance, damping, **kwargs)
        if not 0 < decay <= 1:
            raise ValueError(
                f"`decay` must be above 0 and at most 1. Received: decay={decay!r}"
            )
        self.decay = float(decay)
        self.least_tolerance = check_positive(least_tolerance, "least_tolerance")

    def build(self, network: Network) -> None:
        """Make the variables that keep the last solution and count outer steps."""
        network.add_states("solution", network.objective.variables(network))
        network.add_state("outer_steps", (), "int64")

    def tolerance_at(
        self, step: int | tf.Tensor, dtype: str | tf.DType = "float32"
    ) -> tf.Tensor:
        """ε_k of the k-th outer step, counted from 0; a scalar tensor."""
        falling = self.tolerance * tf.pow(
            tf.constant(self.decay, dtype), tf.cast(step, dtype)
        )
        return tf.maximum(falling, tf.cast(self.least_tolerance, dtype))

    def hypergradient(self, problem: Problem) -> Hypergradient:
        """dQ/dλ as in the first outer step: solved to ε_0, from zero."""
        found, _ = self.warm_hypergradient(problem, 0, None)
        return found

    def warm_hypergradient(
        self,
        problem: Problem,
        step: int | tf.Tensor,
        start: list[tf.Tensor] | None,
    ) -> tuple[Hypergradient, list[tf.Tensor]]:
        """dQ/dλ of the k-th outer step.

        Args:
            problem: The `Problem`.
            step: k.
            start: Where the solver starts: the last solution, or `None` for zero.

        Returns:
            A `Hypergradient` and the solution, a list of tensors.
        """
        tolerance = self.tolerance_at(step, problem.weights[0].dtype)

        def solve(hessian, b):
            product = damped(self.product(problem, hessian), self.damping)
            return solvers.conjugate_gradient(
                product, b, self.iterations, tolerance, start
            )

        return through_solution(problem, solve)

    def outer_step(
        self, network: Network, validation: tuple, training: tuple | None
    ) -> dict[str, tf.Tensor]:
        """λ ← a step along dQ/dλ; keeps the solution for the next one."""
        problem, steps = (
            network.problem(training, validation),
            network.state("outer_steps"),
        )
        last = network.states("solution", len(problem.weights))
        found, solution = self.warm_hypergradient(
            problem, steps.value, [tf.convert_to_tensor(v) for v in last]
        )
        logs = self.descend(network, found)
        for variable, value in zip(last, solution, strict=True):
            # A solve that broke down is no place to start the next one from.
            usable = tf.reduce_all(tf.math.is_finite(value))
            variable.assign(tf.where(usable, value, tf.zeros_like(value)))
        steps.assign_add(1)
        return logs

    def minimize(
        self,
        inner_loss: Callable,
        outer_loss: Callable,
        weights: typing.Any,
        hyperparameters: typing.Any,
        outer_iterations: int = 50,
        inner_iterations: int = 1000,
        low: typing.Any = None,
        high: typing.Any = None,
        callback: Callable | None = None,
        outer_tolerance: float = 0.0,
    ) -> HOAGResult:
        """The whole algorithm (Alg. 1) on plain functions, without mini-batches.

        Every outer iteration trains the weights by L-BFGS from the last ones, until
        ‖∂L/∂w‖∞ is at most ε_k, and at most ε_k times its value at the start. It then
        solves to ε_k and takes a step of size 1 / L. If the step decreased Q by at
        least L/2 times its squared length, as it does for an L-smooth Q, then L falls
        by 5 %. If the step increased Q, it is taken back and L doubles. Both
        comparisons allow for the error that ε_k permits. The first step has length 1.

        Args:
            inner_loss: L, the loss that trains the weights: a function of weights and
                hyperparameters, structured as given here, that returns a scalar, or one
                loss per example, `[n]`, whose mean is taken.
            outer_loss: Q, the loss that judges hyperparameters: a function of both that
                returns a scalar.
            weights: Structure of tensors or variables, at which the first training
                starts.
            hyperparameters: λ, a structure of tensors or variables, to start at.
            outer_iterations: Largest number of steps in λ, including those that are
                taken back. Defaults to 50.
            inner_iterations: Most L-BFGS iterations in one outer iteration. Defaults to
                1000.
            low: Least value of all hyperparameters: a number, or an array if there is
                one hyperparameter. Steps are projected on it. Defaults to `None`: no
                bound.
            high: Largest value of all hyperparameters, likewise.
            callback: Function that is called after every outer iteration with its
                entry of the history, a dict, and the hyperparameters that were tried in
                it, structured as given. Defaults to `None`.
            outer_tolerance: The value of ‖dQ/dλ‖ at accepted hyperparameters at which
                to stop, in units of Q per unit of λ. Of hyperparameters at `low` or
                `high` counts what a unit step along −dQ/dλ would move them inside the
                bounds. Defaults to 0: all steps are taken, unless the hypergradient
                becomes exactly 0.

        Returns:
            A `HOAGResult`.

        Raises:
            ValueError: If an argument is out of range.
            FloatingPointError: If the outer loss becomes NaN or infinite; the error
                says in which iteration.

        Warns:
            RuntimeWarning: If a linear solve broke down; see `history["status"]`.
        """
        problem, pack = structured_problem(
            inner_loss, outer_loss, weights, hyperparameters, None
        )
        check_count(outer_iterations, "outer_iterations", 1)
        check_count(inner_iterations, "inner_iterations", 1)
        check_non_negative(outer_tolerance, "outer_tolerance")
        descent = OuterDescent(self, problem, inner_iterations, low, high)
        history, status = [], Status.OUT_OF_ITERATIONS
        for step in range(outer_iterations):
            tried = descent.candidate
            history.append(descent.advance(step))
            if callback is not None:
                callback(history[-1], pack(None, tried)[1])
            if history[-1]["accepted"] and descent.slope() <= outer_tolerance:
                status = Status.CONVERGED
                break
        _warn_of_breakdowns(history)
        packed_weights, packed = pack(descent.weights, descent.hyperparameters)
        columns = {key: np.array([row[key] for row in history]) for key in history[0]}
        return HOAGResult(packed, packed_weights, columns, status)

    def get_config(self) -> dict:
        config = super().get_config()
        return {
            **config,
            "decay": self.decay,
            "least_tolerance": self.least_tolerance,
        }


def _warn_of_breakdowns(history):
    broken = [row["status"] for row in history if not Status(row["status"]).usable]
    if broken:
        status = Status(broken[-1])
        warnings.warn(
            f"HOAG: the linear solve broke down in {len(broken)} of {len(history)} "
            f"outer iterations. The last time: {status.name}. {status.explain()}",
            RuntimeWarning,
            stacklevel=3,
        )
