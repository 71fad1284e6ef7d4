"""The implicit function theorem by conjugate gradients."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count, check_non_negative
from bilevel_tf.autodiff import solvers
from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.solution import Solution
from bilevel_tf.autodiff.solvers import Product
from bilevel_tf.autodiff.vectors import add_scaled
from bilevel_tf.methods.implicit.implicit import Implicit
from bilevel_tf.network.problem import Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class ConjugateGradient(Implicit):
    """The implicit function theorem; H⁻¹ by conjugate gradients.

    Each iteration takes one product with the Hessian H of the inner loss, which costs
    about two gradients. The solver stops early if it finds that H is not positive
    definite; the report says so.

    Args:
        iterations: Most iterations. Defaults to 10, because a rough solution does in
            `fit`; as many as there are weights make it exact.
        tolerance: Relative residual ‖b − H·x‖ / ‖b‖ at which to stop. Defaults to 1e-5,
            about what single precision can reach.
        damping: Number to add to the diagonal of H, in units of loss / weight². It
            makes the indefinite Hessian of a network away from its optimum definite.
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
        Pedregosa, "Hyperparameter optimization with approximate gradient", 2016; as
        used by Rajeswaran et al., 2019, and Lorraine et al., 2020.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³.

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.ConjugateGradient(iterations=10, tolerance=1e-6))
    >>> float(result.gradients)
    -0.25
    >>> int(result.report["iterations"])
    1
    """

    def __init__(
        self,
        iterations: int = 10,
        tolerance: float = 1e-5,
        damping: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.iterations = check_count(iterations, "iterations", 1)
        self.tolerance = check_non_negative(tolerance, "tolerance")
        self.damping = check_non_negative(damping, "damping")

    def solve(self, problem: Problem, hessian: Hessian, b: list[tf.Tensor]) -> Solution:
        """Solve H·x = b; see `solvers.conjugate_gradient`."""
        product = damped(self.product(problem, hessian), self.damping)
        return solvers.conjugate_gradient(product, b, self.iterations, self.tolerance)

    def product(self, problem: Problem, hessian: Hessian) -> Product:
        """v ↦ H·v; subclasses take another matrix for H."""
        return hessian.product

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "iterations": self.iterations,
            "tolerance": self.tolerance,
            "damping": self.damping,
        }


def damped(product: Product, damping: float) -> Product:
    """v ↦ H·v + damping · v, given v ↦ H·v."""
    if not damping:
        return product
    return lambda vector: add_scaled(product(vector), damping, vector)
