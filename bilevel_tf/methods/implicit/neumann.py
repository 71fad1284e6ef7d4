"""The implicit function theorem by a Neumann series."""

import keras
import tensorflow as tf

from bilevel_tf._arguments import count, positive
from bilevel_tf.autodiff import solvers
from bilevel_tf.methods.implicit.implicit import Implicit


@keras.saving.register_keras_serializable("bilevel_tf")
class Neumann(Implicit):
    """H⁻¹ ≈ α Σ_{j ≤ i} (I − αH)ʲ.

    The same as differentiating the last i steps of gradient descent with learning
    rate α at the optimum. The error falls by ‖I − αH‖ with every term.

    Args:
        terms: i, the number of products with H. Defaults to 20, the paper's.
        learning_rate: α. Must be below 2 / ‖H‖ for the series to converge, and the
            closer to 1 / ‖H‖ the faster it does. Defaults to `None`: that of a power
            iteration of `power_iterations` products, before every solve.
        power_iterations: Defaults to 5; an estimate of ‖H‖ that is up to half too
            small still converges.
        **kwargs: See `Method`.

    The report's "converged" is false where the terms grow: α is then too large, or H
    not positive definite.

    Reference:
        Lorraine, Vicol & Duvenaud, "Optimizing millions of hyperparameters by implicit
        differentiation", 2020, Alg. 3.
    """

    def __init__(self, terms=20, learning_rate=None, power_iterations=5, **kwargs):
        super().__init__(**kwargs)
        self.terms = count(terms, "terms", 0)
        self.learning_rate = (
            None if learning_rate is None else positive(learning_rate, "learning_rate")
        )
        self.power_iterations = count(power_iterations, "power_iterations", 1)

    def solve(self, problem, hessian, b):
        """The partial sum."""
        if self.learning_rate is None:
            top = solvers.largest_eigenvalue(hessian.product, b, self.power_iterations)
            rate = tf.math.divide_no_nan(tf.ones_like(top), top)
        else:
            rate = tf.constant(self.learning_rate, b[0].dtype)
        return solvers.neumann_series(hessian.product, b, self.terms, rate)

    def get_config(self):
        return {
            **super().get_config(),
            "terms": self.terms,
            "learning_rate": self.learning_rate,
            "power_iterations": self.power_iterations,
        }
