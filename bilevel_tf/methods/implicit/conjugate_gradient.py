"""The implicit function theorem by conjugate gradients."""

import keras

from bilevel_tf._arguments import count, non_negative
from bilevel_tf.autodiff import solvers
from bilevel_tf.autodiff.vectors import add_scaled
from bilevel_tf.methods.implicit.implicit import Implicit


@keras.saving.register_keras_serializable("bilevel_tf")
class ConjugateGradient(Implicit):
    """H⁻¹ by conjugate gradients.

    Args:
        iterations: Most iterations. Defaults to 10.
        tolerance: Relative residual at which to stop. Defaults to 1e-5.
        damping: Added to the diagonal of H: makes an indefinite Hessian, that of a
            network away from its optimum, definite. Defaults to 0.
        **kwargs: See `Method`.

    Reference:
        Pedregosa, "Hyperparameter optimization with approximate gradient", 2016; as
        used by Rajeswaran et al., 2019, and Lorraine et al., 2020.
    """

    def __init__(self, iterations=10, tolerance=1e-5, damping=0.0, **kwargs):
        super().__init__(**kwargs)
        self.iterations = count(iterations, "iterations", 1)
        self.tolerance = non_negative(tolerance, "tolerance")
        self.damping = non_negative(damping, "damping")

    def solve(self, problem, hessian, b):
        """Stops early, not converged, where H is found not to be definite."""
        product = damped(self.product(problem, hessian), self.damping)
        return solvers.conjugate_gradient(product, b, self.iterations, self.tolerance)

    def product(self, problem, hessian):
        """v ↦ H·v; subclasses have another matrix."""
        return hessian.product

    def get_config(self):
        return {
            **super().get_config(),
            "iterations": self.iterations,
            "tolerance": self.tolerance,
            "damping": self.damping,
        }


def damped(product, damping):
    """v ↦ H·v + damping · v."""
    if not damping:
        return product
    return lambda vector: add_scaled(product(vector), damping, vector)
