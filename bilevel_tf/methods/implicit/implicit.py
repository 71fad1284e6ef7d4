"""Methods that differentiate the optimality condition ∂L/∂w = 0."""

from bilevel_tf.autodiff.vectors import dot
from bilevel_tf.methods.differentiating import Differentiating
from bilevel_tf.network.problem import Hypergradient


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
