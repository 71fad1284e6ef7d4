"""Hyperparameter optimisation with approximate gradient."""

import typing

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import count, positive
from bilevel_tf.autodiff import solvers
from bilevel_tf.methods.functional import structured_problem
from bilevel_tf.methods.implicit.conjugate_gradient import ConjugateGradient, damped
from bilevel_tf.methods.implicit.implicit import through_solution
from bilevel_tf.methods.implicit.outer_descent import OuterDescent


class HOAGResult(typing.NamedTuple):
    """What `HOAG.minimize` found.

    Attributes:
        hyperparameters: Structured as given.
        weights: Trained at these, structured as given.
        history: NumPy arrays by name, one entry per outer iteration: "outer_loss",
            "tolerance", "gradient_norm" of dQ/dλ, "inner_gradient_norm" that L-BFGS
            reached, "residual" and "iterations" of the linear solve, "step_size"
            (1 / L), and "accepted".
    """

    hyperparameters: object
    weights: object
    history: dict


@keras.saving.register_keras_serializable("bilevel_tf")
class HOAG(ConjugateGradient):
    """Conjugate gradients to a tolerance that tightens, each from the last solution.

    The k-th outer step solves to a relative residual of ε_k = tolerance · decayᵏ: far
    from the optimum a rough hypergradient is enough. In `fit` the inner problem is
    trained by `train_steps` steps of the model's optimizer and λ by the
    hyper-optimizer; `minimize` is the whole published algorithm on plain functions.

    Args:
        tolerance: ε_0. Defaults to 0.1.
        decay: Defaults to 0.9; the paper has exponential decrease with this rate.
        least_tolerance: Where ε_k stops to fall. Defaults to 1e-6, what single
            precision can reach.
        iterations: Most iterations of one solve. Defaults to 100.
        damping: Added to the diagonal of H. Defaults to 0.
        **kwargs: See `Method`.

    Reference:
        Pedregosa, "Hyperparameter optimization with approximate gradient", 2016.
    """

    def __init__(
        self,
        tolerance=0.1,
        decay=0.9,
        least_tolerance=1e-6,
        iterations=100,
        damping=0.0,
        **kwargs,
    ):
        tolerance = positive(tolerance, "tolerance")
        super().__init__(iterations, tolerance, damping, **kwargs)
        if not 0 < decay <= 1:
            raise ValueError(
                f"`decay` must be above 0 and at most 1. Received: decay={decay!r}"
            )
        self.decay = float(decay)
        self.least_tolerance = positive(least_tolerance, "least_tolerance")

    def build(self, network):
        """Make the variables that keep the last solution and count outer steps."""
        network.add_states("solution", network.objective.variables(network))
        network.add_state("outer_steps", (), "int64")

    def tolerance_at(self, step, dtype="float32"):
        """ε_k of the k-th outer step, counted from 0; a scalar tensor."""
        falling = self.tolerance * tf.pow(
            tf.constant(self.decay, dtype), tf.cast(step, dtype)
        )
        return tf.maximum(falling, tf.cast(self.least_tolerance, dtype))

    def hypergradient(self, problem):
        """dQ/dλ as in the first outer step: to ε_0, from zero."""
        found, _ = self.warm_hypergradient(problem, 0, None)
        return found

    def warm_hypergradient(self, problem, step, start):
        """dQ/dλ of the k-th outer step.

        Args:
            problem: The `Problem`.
            step: k.
            start: Where the solver starts, the last solution; `None` for zero.

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

    def outer_step(self, network, validation, training):
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
        inner_loss,
        outer_loss,
        weights,
        hyperparameters,
        outer_iterations=50,
        inner_iterations=1000,
        low=None,
        high=None,
        callback=None,
    ):
        """The whole algorithm (Alg. 1) on plain functions, without mini-batches.

        Every outer iteration trains the weights by L-BFGS, from the last ones, until
        ‖∂L/∂w‖∞ is at most ε_k, and at most ε_k of where it started; solves to ε_k;
        and takes a step of size 1 / L, which adapts. L falls by 5 % after a step that
        decreased Q by L/2 times its squared length, as it does for an L-smooth Q, and
        doubles after one that increased Q, which is taken back; both up to what ε_k
        leaves open. The first step has length 1.

        Args:
            inner_loss, outer_loss, weights, hyperparameters: As in
                `bilevel_tf.hypergradient`.
            outer_iterations: Steps in λ, those that are taken back included.
            inner_iterations: Most L-BFGS iterations in one outer iteration.
            low, high: Optional ends of all hyperparameters, on which they are
                projected: numbers, or arrays where there is one hyperparameter.
            callback: Optional function that is called after every outer iteration,
                with its entry of the history, a dict, and the hyperparameters that
                were tried in it, structured as given.

        Returns:
            A `HOAGResult`.

        Raises:
            FloatingPointError: If a loss becomes NaN or infinite; says in which
                iteration.
        """
        problem, pack = structured_problem(
            inner_loss, outer_loss, weights, hyperparameters, None
        )
        count(outer_iterations, "outer_iterations", 1)
        count(inner_iterations, "inner_iterations", 1)
        descent = OuterDescent(self, problem, inner_iterations, low, high)
        history = []
        for step in range(outer_iterations):
            tried = descent.candidate
            history.append(descent.advance(step))
            if callback is not None:
                callback(history[-1], pack(None, tried)[1])
        packed_weights, packed = pack(descent.weights, descent.hyperparameters)
        columns = {key: np.array([row[key] for row in history]) for key in history[0]}
        return HOAGResult(packed, packed_weights, columns)

    def get_config(self):
        config = super().get_config()
        return {
            **config,
            "decay": self.decay,
            "least_tolerance": self.least_tolerance,
        }
