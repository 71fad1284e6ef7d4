"""Methods that differentiate the optimality condition ∂L/∂w = 0."""

from collections.abc import Callable

import tensorflow as tf

from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.solution import Solution
from bilevel_tf.autodiff.solvers import fixed_noise
from bilevel_tf.autodiff.vectors import dot
from bilevel_tf.methods.differentiating import Differentiating
from bilevel_tf.network.problem import Hypergradient, Problem, make_report


class Implicit(Differentiating):
    """dQ/dλ = ∂Q/∂λ − (∂Q/∂w · H⁻¹) · ∂²L/∂w∂λ, at weights where ∂L/∂w = 0.

    This is the implicit function theorem, which is exact at the optimum of the inner
    loss; H = ∂²L/∂w² is its Hessian. The methods differ in what they take for H⁻¹. A
    subclass implements `solve(problem, hessian, b)`.

    Args:
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If a number is not whole or too small.
        TypeError: If there is no argument of that name.

    Example of a subclass, which takes the diagonal of a dense Hessian for H:

    >>> from bilevel_tf.autodiff.solution import Solution, Status
    >>> class Diagonal(bt.methods.T1T2):
    ...     def solve(self, problem, hessian, b):
    ...         diagonal = tf.linalg.diag_part(hessian.dense())
    ...         return Solution(
    ...             [tf.reshape(tf.reshape(b[0], [-1]) / diagonal, tf.shape(b[0]))],
    ...             iterations=tf.constant(diagonal.shape[0]),
    ...             residual=tf.constant(float("nan")),
    ...             status=tf.constant(int(Status.CONVERGED)))
    >>> result = bt.hypergradient(
    ...     lambda w, h: tf.reduce_sum((w - 1.0) ** 2 + h * w**2),
    ...     lambda w, h: tf.reduce_sum(w**2),
    ...     weights=tf.constant([0.5, 0.5], tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=Diagonal())
    >>> float(result.gradients)
    -0.5
    """

    log_names: tuple[str, ...] = ("hypergradient_residual", "hypergradient_converged")

    def solve(self, problem: Problem, hessian: Hessian, b: list[tf.Tensor]) -> Solution:
        """Solve H·x = b.

        Args:
            problem: The `Problem`.
            hessian: The `Hessian` of its inner loss.
            b: ∂Q/∂w, a list of tensors.

        Returns:
            A `Solution`.
        """
        raise NotImplementedError

    def hypergradient(self, problem: Problem) -> Hypergradient:
        """dQ/dλ at the weights of the problem, which should be trained."""
        found, _ = through_solution(
            problem, lambda hessian, b: self.solve(problem, hessian, b)
        )
        return found


def through_solution(
    problem: Problem, solve: Callable[[Hessian, list[tf.Tensor]], Solution]
) -> tuple[Hypergradient, list[tf.Tensor]]:
    """dQ/dλ through an approximate solution of H·x = ∂Q/∂w.

    Args:
        problem: The `Problem`.
        solve: Function of the `Hessian` and ∂Q/∂w that returns a `Solution`.

    Returns:
        A `Hypergradient`, and x, a list of tensors.
    """
    outer_loss, target, direct = problem.outer_gradients()
    hessian = problem.hessian()
    # Nothing trains an unused weight: it is a constant, whatever Q says of it.
    solution = solve(hessian, leave_out_unused(hessian, target))
    indirect = hessian.cross_product([-x for x in solution.x])
    report = make_report(
        solution.status,
        solution.iterations,
        solution.residual,
        gap=dot(solution.x, hessian.gradients),
    )
    gradients = problem.total(direct, indirect)
    found = Hypergradient(gradients, outer_loss, problem.weights, report)
    return found, solution.x


def leave_out_unused(hessian: Hessian, target: list[tf.Tensor]) -> list[tf.Tensor]:
    """Put 0 for weights that the inner loss does not depend on.

    Such as the row of an embedding that the training batch does not use, but Q does.
    Nothing trains these weights, so that no hyperparameter moves them. Left in, they
    would make H·x = b a system without a solution, in which conjugate gradients fail.

    A weight without effect has a gradient of exactly 0, and the product of H with a
    random vector is 0 there. The product is taken only if such a gradient turns up.

    Args:
        hessian: The `Hessian` of the inner loss.
        target: ∂Q/∂w, a list of tensors.

    Returns:
        A list of tensors.
    """
    suspects = [
        tf.equal(g, 0) & tf.not_equal(b, 0)
        for g, b in zip(hessian.gradients, target, strict=True)
    ]

    def leave_out():
        moved = hessian.product(fixed_noise(target))
        return [
            tf.where(s & tf.equal(m, 0), tf.zeros_like(b), b)
            for s, m, b in zip(suspects, moved, target, strict=True)
        ]

    suspected = tf.reduce_any([tf.reduce_any(s) for s in suspects])
    return list(tf.cond(suspected, leave_out, lambda: list(target)))
