"""The empirical Fisher matrix in place of the Hessian."""

import keras
import tensorflow as tf

from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.jacobian import Jacobian
from bilevel_tf.autodiff.solvers import Product
from bilevel_tf.autodiff.vectors import scaled
from bilevel_tf.methods.implicit.curvature import PositiveCurvature
from bilevel_tf.network.problem import Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class EmpiricalFisher(PositiveCurvature):
    """The implicit function theorem with the empirical Fisher matrix for H.

    That matrix is the mean of g·gᵀ over examples, where g is the gradient of one
    example's loss. The gradients of single examples are never formed: with the Jacobian
    J of the n examples' losses, a product is Jᵀ(J·v) / n. Conjugate gradients solve.
    The inner loss must return one loss per example, `[n]`.

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

    Raises:
        ValueError: If an argument is out of range. At the call, if the inner loss
            returns a scalar.
        TypeError: If there is no argument of that name.

    Reference:
        Larsen et al., "Design and regularization of neural networks: the optimal use
        of a validation set", 1996.

    Example: the losses of two examples have the gradients 1 and −1, whose mean square
    is 1.

    >>> targets = tf.constant([0.0, 1.0], tf.float64)
    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - targets) ** 2 + h * (w - 0.5) ** 2 + h * w,
    ...     lambda w, h: w,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(0.0, tf.float64),
    ...     method=bt.methods.EmpiricalFisher(damping=0.0))
    >>> float(result.gradients)
    -1.0
    """

    def product(self, problem: Problem, hessian: Hessian) -> Product:
        """v ↦ Jᵀ J v / n.

        Raises:
            ValueError: If the inner loss is a scalar.
        """

        def losses(weights):
            return problem.example_losses(weights, problem.hyperparameters)

        jacobian = Jacobian(losses, problem.weights)
        if jacobian.value.shape.rank == 0:
            raise ValueError(
                "EmpiricalFisher needs the gradient of every example: `inner_loss` "
                "must return one loss per example, [n]. Received: a scalar"
            )
        count = tf.cast(tf.size(jacobian.value), jacobian.value.dtype)

        def product(vector):
            squared = jacobian.transposed_product(jacobian.product(vector))
            return scaled(1.0 / count, squared)

        return product
