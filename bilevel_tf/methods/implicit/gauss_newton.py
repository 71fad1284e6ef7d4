"""The Gauss-Newton matrix in place of the Hessian."""

import keras

from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.jacobian import gauss_newton_product
from bilevel_tf.autodiff.vectors import add_scaled
from bilevel_tf.methods.implicit.curvature import PositiveCurvature


@keras.saving.register_keras_serializable("bilevel_tf")
class GaussNewton(PositiveCurvature):
    """The generalised Gauss-Newton matrix in place of H.

    Jᵀ (∂²loss/∂outputs²) J plus the penalty's Hessian; it leaves out the curvature
    of the network itself, and is the Hessian where the network is linear. The inner
    loss must be a `ComposedLoss`.

    Args: see `ConjugateGradient`; `damping` defaults to 1e-3.

    Reference:
        Schraudolph, "Fast curvature matrix-vector products for second-order gradient
        descent", 2002.
    """

    def product(self, problem, hessian):
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
