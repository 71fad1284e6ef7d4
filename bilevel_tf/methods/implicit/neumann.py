"""The implicit function theorem by a Neumann series."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count, check_positive
from bilevel_tf.autodiff import solvers
from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.solution import Solution
from bilevel_tf.methods.implicit.implicit import Implicit
from bilevel_tf.network.problem import Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class Neumann(Implicit):
    """The implicit function theorem with H⁻¹ ≈ α Σ_{j ≤ i} (I − αH)ʲ.

    This equals differentiating the last i steps of gradient descent with learning
    rate α at the optimum. The error falls by ‖I − αH‖ with every term. The status in
    the report is DIVERGED if the terms do not shrink: α is then too large, or H is not
    positive definite.

    Args:
        terms: i, the number of products with H. Defaults to 20, the paper's.
        learning_rate: α, in units of weight² / loss. It must be below 2 / ‖H‖ for the
            series to converge, which is fastest near 1 / ‖H‖. Defaults to `None`: take
            1 / ‖H‖ as estimated before every solve.
        power_iterations: Number of products in the power iteration that estimates ‖H‖.
            Defaults to 5: the series converges even with half of the true ‖H‖.
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
        Lorraine, Vicol & Duvenaud, "Optimizing millions of hyperparameters by implicit
        differentiation", 2020, Alg. 3.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³.

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.Neumann(terms=20, learning_rate=0.25))
    >>> float(result.gradients)
    -0.25
    """

    def __init__(
        self,
        terms: int = 20,
        learning_rate: float | None = None,
        power_iterations: int = 5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.terms = check_count(terms, "terms", 0)
        self.learning_rate = (
            None
            if learning_rate is None
            else check_positive(learning_rate, "learning_rate")
        )
        self.power_iterations = check_count(power_iterations, "power_iterations", 1)

    def solve(self, problem: Problem, hessian: Hessian, b: list[tf.Tensor]) -> Solution:
        """Solve H·x = b; see `solvers.neumann_series`."""
        if self.learning_rate is None:
            top = solvers.largest_eigenvalue(hessian.product, b, self.power_iterations)
            rate = tf.math.divide_no_nan(tf.ones_like(top), top)
        else:
            rate = tf.constant(self.learning_rate, b[0].dtype)
        return solvers.neumann_series(hessian.product, b, self.terms, rate)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "terms": self.terms,
            "learning_rate": self.learning_rate,
            "power_iterations": self.power_iterations,
        }
