"""The empirical Fisher matrix in place of the Hessian."""

import keras
import tensorflow as tf

from bilevel_tf.autodiff.jacobian import Jacobian
from bilevel_tf.autodiff.vectors import scaled
from bilevel_tf.methods.implicit.curvature import PositiveCurvature


@keras.saving.register_keras_serializable("bilevel_tf")
class EmpiricalFisher(PositiveCurvature):
    """The mean of g·gᵀ over examples, g an example's gradient, in place of H.

    It never forms the gradients of single examples: with J the Jacobian of the
    examples' losses, a product is Jᵀ(J·v) / n. The inner loss must return one loss
    per example.

    Args: see `ConjugateGradient`; `damping` defaults to 1e-3.

    Reference:
        Larsen et al., "Design and regularization of neural networks: the optimal use
        of a validation set", 1996.
    """

    def product(self, problem, hessian):
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
