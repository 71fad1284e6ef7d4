"""Methods that differentiate the optimality condition ∂L/∂w = 0."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.autodiff import solvers
from bilevel_tf.autodiff.vectors import add_scaled, dot, flatten, norm, unflatten
from bilevel_tf.hypergradients.differentiating import Differentiating
from bilevel_tf.hypergradients.problem import Hypergradient
from bilevel_tf.hyperparameters.arguments import count, non_negative, positive


class Implicit(Differentiating):
    """dQ/dλ = ∂Q/∂λ − (∂Q/∂w · H⁻¹) · ∂²L/∂w∂λ, at weights where ∂L/∂w = 0.

    That is the implicit function theorem, which is exact at the optimum of the inner
    loss. The methods differ in what they take for H⁻¹. A subclass gives
    `solve(problem, hessian, b)`.
    """

    log_names = ("hypergradient_residual", "hypergradient_converged")

    def solve(self, problem, hessian, b):
        """A `solvers.Solution` of H·x = b.

        Args:
            problem: The `Problem`.
            hessian: The `Hessian` of its inner loss.
            b: ∂Q/∂w, a list of tensors.
        """
        raise NotImplementedError

    def hypergradient(self, problem):
        """dQ/dλ at the weights of the problem, which should be trained."""
        found, _ = through_solution(
            problem, lambda hessian, b: self.solve(problem, hessian, b)
        )
        return found


def through_solution(problem, solve):
    """dQ/dλ through an approximate solution of H·x = ∂Q/∂w.

    Args:
        problem: The `Problem`.
        solve: Function of the `Hessian` and ∂Q/∂w that returns a `solvers.Solution`.

    Returns:
        A `Hypergradient`, and x, a list of tensors. Its report has, beside what the
        solver says, the "gap": xᵀ ∂L/∂w, to first order what Q would lose if the
        weights were trained to the end.
    """
    outer_loss, target, direct = problem.outer_gradients()
    hessian = problem.hessian()
    solution = solve(hessian, target)
    indirect = hessian.cross_product([-x for x in solution.x])
    report = {
        "iterations": solution.iterations,
        "residual": solution.residual,
        "converged": solution.converged,
        "gap": dot(solution.x, hessian.gradients),
    }
    gradients = problem.total(direct, indirect)
    found = Hypergradient(gradients, outer_loss, problem.weights, report)
    return found, solution.x


@keras.saving.register_keras_serializable("bilevel_tf")
class ExactImplicit(Implicit):
    """The dense Hessian, solved exactly; for small models.

    Args:
        damping: Added to the diagonal of H. Defaults to 0.
        max_weights: Largest number of weights allowed, since H has its square of
            entries. Defaults to 2,000 (32 MB in double precision).
        **kwargs: See `Method`.

    Raises:
        ValueError: At the call, if there are more weights.

    Reference:
        Bengio, "Gradient-based optimization of hyperparameters", 2000.
    """

    def __init__(self, damping=0.0, max_weights=2000, **kwargs):
        super().__init__(**kwargs)
        self.damping = non_negative(damping, "damping")
        self.max_weights = count(max_weights, "max_weights", 1)

    def solve(self, problem, hessian, b):
        """By QR decomposition; not converged if H is singular to rounding."""
        size = sum(w.shape.num_elements() for w in problem.weights)
        if size > self.max_weights:
            raise ValueError(
                f"An exact Hessian of {size:,} weights has {size**2:,} entries; "
                f"max_weights={self.max_weights:,}. Use "
                "bilevel_tf.ConjugateGradient() or bilevel_tf.Neumann(), which never "
                "form it, or raise `max_weights`."
            )
        vector = flatten(b)
        matrix = hessian.dense()
        matrix += self.damping * tf.eye(size, dtype=matrix.dtype)
        # XLA has no LU decomposition.
        q, r = tf.linalg.qr(matrix)
        rotated = tf.linalg.matvec(q, vector, transpose_a=True)
        solved = tf.linalg.triangular_solve(r, rotated[:, None], lower=False)[:, 0]
        left = tf.linalg.norm(tf.linalg.matvec(matrix, solved) - vector)
        left = tf.math.divide_no_nan(left, tf.linalg.norm(vector))
        pivots = tf.abs(tf.linalg.diag_part(r))
        rounding = size * np.finfo(matrix.dtype.as_numpy_dtype).eps
        regular = tf.reduce_min(pivots) > rounding * tf.reduce_max(pivots)
        converged = regular & tf.math.is_finite(left)
        x = unflatten(solved, b)
        return solvers.Solution(x, tf.constant(size), left, converged)

    def get_config(self):
        return {
            **super().get_config(),
            "damping": self.damping,
            "max_weights": self.max_weights,
        }


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


@keras.saving.register_keras_serializable("bilevel_tf")
class Neumann(Implicit):
    """H⁻¹ ≈ α Σ_{j ≤ i} (I − αH)ʲ.

    The same as differentiating the last i steps of gradient descent with learning
    rate α at the optimum. The error falls by ‖I − αH‖ with every term.

    Args:
        terms: i, the number of products with H. Defaults to 20, the paper's.
        rate: α. Must be below 2 / ‖H‖ for the series to converge, and the closer to
            1 / ‖H‖ the faster it does. Defaults to `None`: that of a power iteration
            of `power_iterations` products, before every solve.
        power_iterations: Defaults to 5; an estimate of ‖H‖ that is up to half too
            small still converges.
        **kwargs: See `Method`.

    The report's "converged" is false where the terms grow: α is then too large, or H
    not positive definite.

    Reference:
        Lorraine, Vicol & Duvenaud, "Optimizing millions of hyperparameters by implicit
        differentiation", 2020, Alg. 3.
    """

    def __init__(self, terms=20, rate=None, power_iterations=5, **kwargs):
        super().__init__(**kwargs)
        self.terms = count(terms, "terms", 0)
        self.rate = None if rate is None else positive(rate, "rate")
        self.power_iterations = count(power_iterations, "power_iterations", 1)

    def solve(self, problem, hessian, b):
        """The partial sum."""
        if self.rate is None:
            top = solvers.largest_eigenvalue(hessian.product, b, self.power_iterations)
            rate = tf.math.divide_no_nan(tf.ones_like(top), top)
        else:
            rate = tf.constant(self.rate, b[0].dtype)
        return solvers.neumann_series(hessian.product, b, self.terms, rate)

    def get_config(self):
        return {
            **super().get_config(),
            "terms": self.terms,
            "rate": self.rate,
            "power_iterations": self.power_iterations,
        }


@keras.saving.register_keras_serializable("bilevel_tf")
class T1T2(Implicit):
    """H⁻¹ ≈ I: the `Neumann` series with no term and rate 1.

    Reference:
        Luketina et al., "Scalable gradient-based tuning of continuous regularization
        hyperparameters", 2016.
    """

    log_names = ()

    def solve(self, problem, hessian, b):
        """b itself."""
        one = tf.ones_like(norm(b))
        return solvers.Solution(b, tf.constant(0), one, tf.constant(True))


def damped(product, damping):
    """v ↦ H·v + damping · v."""
    if not damping:
        return product
    return lambda vector: add_scaled(product(vector), damping, vector)
