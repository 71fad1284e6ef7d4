"""Implicit methods that take a positive matrix for the Hessian."""

from bilevel_tf.methods.implicit.conjugate_gradient import ConjugateGradient


class PositiveCurvature(ConjugateGradient):
    """Conjugate gradients on a matrix that is never indefinite; damped by default.

    Args:
        iterations: Most iterations. Defaults to 10.
        tolerance: Relative residual at which to stop. Defaults to 1e-5.
        damping: Added to the diagonal, because the matrix alone has no more rank
            than there are examples. Defaults to 1e-3.
        **kwargs: See `Method`.
    """

    def __init__(self, iterations=10, tolerance=1e-5, damping=1e-3, **kwargs):
        super().__init__(iterations, tolerance, damping, **kwargs)

    def check(self, network):
        """Check also that the inner loss is made of the losses of examples.

        Raises:
            ValueError: If the objective has one of its own.
        """
        super().check(network)
        if not network.objective.composed:
            raise ValueError(
                f"{type(self).__name__} needs to see the training loss in its parts, "
                f"and that of {type(network.objective).__name__} is another. Use "
                "bilevel_tf.ConjugateGradient() or bilevel_tf.Neumann()."
            )
