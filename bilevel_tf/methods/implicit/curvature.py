"""Implicit methods that take a positive matrix for the Hessian."""

from typing import Any

from bilevel_tf.methods.implicit.conjugate_gradient import ConjugateGradient


class PositiveCurvature(ConjugateGradient):
    """Conjugate gradients on a matrix that has no negative eigenvalue.

    Args:
        iterations: Most iterations. Defaults to 10, because a rough solution does in
            `fit`.
        tolerance: Relative residual ‖b − H·x‖ / ‖b‖ at which to stop. Defaults to 1e-5,
            about what single precision can reach.
        damping: Number to add to the diagonal, in units of loss / weight². Defaults to
            1e-3, because the matrix alone has no higher rank than there are examples.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.
    """

    def __init__(
        self,
        iterations: int = 10,
        tolerance: float = 1e-5,
        damping: float = 1e-3,
        **kwargs: Any,
    ):
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
