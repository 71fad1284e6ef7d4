"""The outer loop of HOAG on plain functions."""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.autodiff.vectors import add_scaled, flatten, norm, unflatten
from bilevel_tf.network.problem import Hypergradient, Problem


class OuterDescent:
    """The state of `HOAG.minimize`: where it is, and the size of its next step.

    Args:
        method: The `HOAG`.
        problem: The `Problem`, at its start.
        inner_iterations: Most L-BFGS iterations in one outer iteration.
        low: Least value of all hyperparameters, or `None`.
        high: Largest value of all hyperparameters, or `None`.

    Attributes:
        weights: The last accepted weights, a flat list.
        hyperparameters: The last accepted hyperparameters, a flat list.
        candidate: The hyperparameters to try next, a flat list.
    """

    def __init__(
        self,
        method: Any,
        problem: Problem,
        inner_iterations: int,
        low: Any,
        high: Any,
    ):
        self._method = method
        self._problem = problem
        self._ends = low, high
        self._inner_iterations = inner_iterations
        self._evaluate = tf.function(self._train, autograph=False)
        self.weights = problem.weights
        self.hyperparameters = self.candidate = problem.hyperparameters
        self._solution = [tf.zeros_like(w) for w in problem.weights]
        # What was found at the accepted point; the first candidate is accepted.
        self._found: Hypergradient
        self._lipschitz = 0.0  # Not known yet.

    def advance(self, step: int) -> dict[str, Any]:
        """Try the candidate, and return the iteration's entry of the history."""
        found, weights, solution, slope = self._evaluate(
            self.weights, self.candidate, tf.constant(step), self._solution
        )
        loss = float(found.outer_loss)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"`outer_loss` became {loss} in outer iteration {step}, at "
                f"hyperparameters {[np.asarray(h) for h in self.candidate]}. The "
                "weights may not have a minimum there; bound the hyperparameters by "
                "`low` and `high`."
            )
        tolerance = float(self._method.tolerance_at(step))
        accepted = self._accept(loss, float(found.report["gap"]), tolerance)
        if accepted:
            self.weights, self._solution = weights, solution
            self.hyperparameters, self._found = self.candidate, found
        size = float(norm(self._found.gradients))
        if not self._lipschitz:
            self._lipschitz = size or 1.0  # A first step of length 1.
        entry = {
            "outer_loss": loss,
            "tolerance": tolerance,
            "gradient_norm": float(norm(found.gradients)),
            "inner_gradient_norm": float(slope),
            "status": int(found.report["status"]),
            "converged": bool(found.report["converged"]),
            "iterations": int(found.report["iterations"]),
            "residual": float(found.report["residual"]),
            "step_size": 1.0 / self._lipschitz,
            "accepted": accepted,
        }
        self.candidate = self.hyperparameters
        if accepted:
            self.candidate = self._step_by(-entry["step_size"])
        return entry

    def slope(self) -> float:
        """‖dQ/dλ‖ at the accepted point, of what the bounds leave of a unit step."""
        moved = add_scaled(self._step_by(-1.0), -1.0, self.hyperparameters)
        return float(norm(moved))

    def _accept(self, loss, gap, tolerance):
        """Decide whether the candidate is taken, and adapt L.

        After a candidate that is not taken, the last accepted point is evaluated again:
        its hypergradient, found to a rougher tolerance, may have been at fault.
        """
        if self.candidate is self.hyperparameters:
            return True
        moved = add_scaled(self.candidate, -1.0, self.hyperparameters)
        length = float(norm(moved))
        # The error of the hypergradient is a share of its size, and that of the losses
        # is what training to the end would change.
        slack = tolerance * float(norm(self._found.gradients)) * length
        slack += abs(gap) + abs(float(self._found.report["gap"]))
        last = float(self._found.outer_loss)
        if loss > last + slack:
            self._lipschitz *= 2.0
            return False
        if loss <= last + slack - 0.5 * self._lipschitz * length**2:
            self._lipschitz *= 0.95
        return True

    def _train(self, weights, hyperparameters, step, solution):
        """Train the weights to ε_k, and find the hypergradient there."""
        problem = self._make_problem(weights, hyperparameters)
        tolerance = self._method.tolerance_at(step, weights[0].dtype)
        first = problem.inner_gradients(weights, hyperparameters)
        largest = tf.reduce_max(tf.abs(flatten(first)))

        def value_and_gradient(vector):
            point = unflatten(vector, weights)
            gradients = problem.inner_gradients(point, hyperparameters)
            return problem.inner(point, hyperparameters), flatten(gradients)

        run = tfp.optimizer.lbfgs_minimize(
            value_and_gradient,
            initial_position=flatten(weights),
            tolerance=tolerance * tf.minimum(largest, 1.0),
            max_iterations=self._inner_iterations,
        )
        weights = unflatten(run.position, weights)
        found, solution = self._method.warm_hypergradient(
            self._make_problem(weights, hyperparameters), step, solution
        )
        slope = tf.reduce_max(tf.abs(run.objective_gradient))
        return found, weights, solution, slope

    def _make_problem(self, weights, hyperparameters):
        problem = self._problem
        losses = problem.inner_loss, problem.outer_loss
        return Problem(*losses, weights, hyperparameters, names=problem.names)

    def _step_by(self, size):
        hyperparameters = add_scaled(self.hyperparameters, size, self._found.gradients)
        for end, clip in zip(self._ends, (tf.maximum, tf.minimum), strict=True):
            if end is not None:
                ends = [tf.cast(end, h.dtype) for h in hyperparameters]
                hyperparameters = list(map(clip, hyperparameters, ends))
        return hyperparameters
