"""The implicit function theorem with the dense Hessian."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count, check_non_negative
from bilevel_tf.autodiff import solvers
from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.solution import Solution
from bilevel_tf.methods.implicit.implicit import Implicit
from bilevel_tf.network.problem import Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class ExactImplicit(Implicit):
    """The implicit function theorem; the dense Hessian H is solved exactly.

    This is for small models: with n weights, H has n² entries and takes n products.

    Args:
        damping: Number to add to the diagonal of H, in units of loss / weight².
            Defaults to 0.
        max_weights: Largest n that is allowed. Defaults to 2,000, for which H takes
            32 MB in double precision.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range. At the call, if there are more
            weights.
        TypeError: If there is no argument of that name.

    Reference:
        Bengio, "Gradient-based optimization of hyperparameters", 2000.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³.

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.methods.ExactImplicit())
    >>> float(result.gradients)
    -0.25
    """

    def __init__(self, damping: float = 0.0, max_weights: int = 2000, **kwargs: Any):
        super().__init__(**kwargs)
        self.damping = check_non_negative(damping, "damping")
        self.max_weights = check_count(max_weights, "max_weights", 1)

    def solve(self, problem: Problem, hessian: Hessian, b: list[tf.Tensor]) -> Solution:
        """Solve H·x = b; see `solvers.dense_solve`."""
        size = sum(w.shape.num_elements() for w in problem.weights)
        if size > self.max_weights:
            raise ValueError(
                f"An exact Hessian of {size:,} weights has {size**2:,} entries; "
                f"max_weights={self.max_weights:,}. Use "
                "bilevel_tf.ConjugateGradient() or bilevel_tf.Neumann(), which never "
                "form it, or raise `max_weights`."
            )
        matrix = hessian.dense()
        matrix += self.damping * tf.eye(size, dtype=matrix.dtype)
        return solvers.dense_solve(matrix, b)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "damping": self.damping,
            "max_weights": self.max_weights,
        }
