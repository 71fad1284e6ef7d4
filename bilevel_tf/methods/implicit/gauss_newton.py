"""The Gauss-Newton matrix in place of the Hessian."""

import keras

from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.jacobian import gauss_newton_product
from bilevel_tf.autodiff.solvers import Product
from bilevel_tf.autodiff.vectors import add_scaled
from bilevel_tf.methods.implicit.curvature import PositiveCurvature
from bilevel_tf.network.problem import Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class GaussNewton(PositiveCurvature):
    """The implicit function theorem with the generalised Gauss-Newton matrix for H.

    That matrix is Jᵀ (∂²loss/∂outputs²) J plus the Hessian of the penalty, where J is
    the Jacobian of the outputs, of all of them if there are several. It leaves out the
    curvature of the network itself, and equals the Hessian if the network is linear.
    For a convex loss and penalty it has no negative eigenvalue. Conjugate gradients
    solve. For `bilevel_tf.hypergradient` the inner loss must be a `ComposedLoss`.

    Args:
        iterations: Most iterations. Defaults to 10, because a rough solution does in
            `fit`.
        tolerance: Relative residual ‖b − H·x‖ / ‖b‖ at which to stop. Defaults to 1e-5,
            about what single precision can reach.
        damping: Number to add to the diagonal, in units of loss / weight². Defaults to
            1e-3, because the matrix alone has no higher rank than there are outputs.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range. At the call, if the inner loss is
            not a `ComposedLoss`.
        TypeError: If there is no argument of that name.

    Reference:
        Schraudolph, "Fast curvature matrix-vector products for second-order gradient
        descent", 2002.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³.

    >>> result = bt.hypergradient(
    ...     bt.methods.ComposedLoss(
    ...         predict=lambda w, h: w,
    ...         loss=lambda outputs, h: (outputs - 1.0) ** 2,
    ...         penalty=lambda w, h: h * w**2),
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.methods.GaussNewton(damping=0.0))
    >>> float(result.gradients)
    -0.25
    """

    def product(self, problem: Problem, hessian: Hessian) -> Product:
        """v ↦ Jᵀ (∂²loss/∂outputs²) J v + ∂²penalty/∂w² v.

        Raises:
            ValueError: If the parts of the inner loss are not known.
        """
        loss, h = problem.parts, problem.hyperparameters
        if loss is None:
            raise ValueError(
                "GaussNewton needs to know where the network ends and the loss begins: "
                "give `inner_loss` as "
                "bilevel_tf.methods.ComposedLoss(predict, loss, penalty)."
            )
        of_data = gauss_newton_product(
            lambda w: loss.predict(w, h),
            lambda outputs: loss.loss(outputs, h),
            problem.weights,
        )
        if loss.penalty is None:
            return of_data
        penalty = Hessian(loss.penalty, problem.weights, h)
        return lambda v: add_scaled(of_data(v), 1.0, penalty.product(v))
