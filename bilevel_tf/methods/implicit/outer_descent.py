"""The outer loop of HOAG on plain functions."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.autodiff.vectors import add_scaled, flatten, norm, unflatten
from bilevel_tf.network.problem import Problem


class OuterDescent:
    """The state of `HOAG.minimize`: where it is, and the size of its next step.

    Args:
        method: The `HOAG`.
        problem: The `Problem`, at its start.
        inner_iterations: Most L-BFGS iterations in one outer iteration.
        low, high: Ends of all hyperparameters, or `None`.

    Attributes:
        weights, hyperparameters: The last accepted ones, flat lists.
        candidate: The hyperparameters to try next, a flat list.
    """

    def __init__(self, method, problem, inner_iterations, low, high):
        self._method = method
        self._problem = problem
        self._ends = low, high
        self._inner_iterations = inner_iterations
        self._evaluate = tf.function(self._trained, autograph=False)
        self.weights = problem.weights
        self.hyperparameters = self.candidate = problem.hyperparameters
        self._solution = [tf.zeros_like(w) for w in problem.weights]
        self._found = None
        self._lipschitz = None

    def advance(self, step):
        """Try the candidate; returns the iteration's entry of the history."""
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
        accepted = self._judge(loss, float(found.report["gap"]), tolerance)
        if accepted:
            self.weights, self._solution = weights, solution
            self.hyperparameters, self._found = self.candidate, found
        size = float(norm(self._found.gradients))
        if self._lipschitz is None:
            self._lipschitz = size or 1.0  # A first step of length 1.
        entry = {
            "outer_loss": loss,
            "tolerance": tolerance,
            "gradient_norm": float(norm(found.gradients)),
            "inner_gradient_norm": float(slope),
            "residual": float(found.report["residual"]),
            "iterations": int(found.report["iterations"]),
            "step_size": 1.0 / self._lipschitz,
            "accepted": accepted,
        }
        self.candidate = self.hyperparameters
        if accepted:
            self.candidate = self._stepped(-entry["step_size"])
        return entry

    def _judge(self, loss, gap, tolerance):
        """Whether the candidate is taken; adapts L.

        After one that is not, the last accepted point is asked again: what was found
        there, to a rougher tolerance, may have been at fault.
        """
        if self.candidate is self.hyperparameters:
            return True
        moved = add_scaled(self.candidate, -1.0, self.hyperparameters)
        length = float(norm(moved))
        # The hypergradient is known to a share of its size, and the losses to what
        # training to the end would change.
        slack = tolerance * float(norm(self._found.gradients)) * length
        slack += abs(gap) + abs(float(self._found.report["gap"]))
        last = float(self._found.outer_loss)
        if loss > last + slack:
            self._lipschitz *= 2.0
            return False
        if loss <= last + slack - 0.5 * self._lipschitz * length**2:
            self._lipschitz *= 0.95
        return True

    def _trained(self, weights, hyperparameters, step, solution):
        """Weights trained to ε_k, and what the method finds there."""
        problem = self._at(weights, hyperparameters)
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
            self._at(weights, hyperparameters), step, solution
        )
        slope = tf.reduce_max(tf.abs(run.objective_gradient))
        return found, weights, solution, slope

    def _at(self, weights, hyperparameters):
        problem = self._problem
        losses = problem.inner_loss, problem.outer_loss
        return Problem(*losses, weights, hyperparameters, names=problem.names)

    def _stepped(self, size):
        hyperparameters = add_scaled(self.hyperparameters, size, self._found.gradients)
        for end, clip in zip(self._ends, (tf.maximum, tf.minimum), strict=True):
            if end is not None:
                ends = [tf.cast(end, h.dtype) for h in hyperparameters]
                hyperparameters = list(map(clip, hyperparameters, ends))
        return hyperparameters
