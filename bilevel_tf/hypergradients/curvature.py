"""Implicit methods that take a positive matrix for the Hessian."""

import keras
import tensorflow as tf

from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.jacobian import Jacobian, gauss_newton_product
from bilevel_tf.autodiff.vectors import add_scaled, scaled
from bilevel_tf.hypergradients.implicit import ConjugateGradient
from bilevel_tf.objectives.objective import Objective


class _Positive(ConjugateGradient):
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

    def build(self, model):
        """Check also that the inner loss is made of the losses of examples.

        Raises:
            ValueError: If the objective has one of its own.
        """
        super().build(model)
        if type(model.objective).inner_loss is not Objective.inner_loss:
            raise ValueError(
                f"{type(self).__name__} needs to see the training loss in its parts, "
                f"and that of {type(model.objective).__name__} is another. Use "
                "bilevel_tf.ConjugateGradient() or bilevel_tf.Neumann()."
            )


@keras.saving.register_keras_serializable("bilevel_tf")
class EmpiricalFisher(_Positive):
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


@keras.saving.register_keras_serializable("bilevel_tf")
class GaussNewton(_Positive):
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
                "give `inner_loss` as bilevel_tf.ComposedLoss(predict, loss, penalty)."
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


class ComposedLoss:
    """An inner loss in its parts: `loss(predict(w, h), h) + penalty(w, h)`.

    Args:
        predict: Function of weights and hyperparameters that returns the outputs, a
            tensor.
        loss: Function of outputs and hyperparameters that returns a scalar.
        penalty: Optional function of weights and hyperparameters that returns a
            scalar.

    Example:

    >>> ComposedLoss(
    ...     predict=lambda w, h: x @ w,
    ...     loss=lambda outputs, h: tf.reduce_mean((outputs - y) ** 2),
    ...     penalty=lambda w, h: h * tf.reduce_sum(w**2))
    """

    def __init__(self, predict, loss, penalty=None):
        self.predict = predict
        self.loss = loss
        self.penalty = penalty

    def __call__(self, weights, hyperparameters, step=None):
        value = self.loss(self.predict(weights, hyperparameters), hyperparameters)
        if self.penalty is None:
            return value
        return value + self.penalty(weights, hyperparameters)

    def on_lists(self, pack):
        """The same on flat lists, `pack` making the structures of these."""
        loss = self.loss
        return ComposedLoss(
            lambda w, h: self.predict(*pack(w, h)),
            lambda outputs, h: loss(outputs, pack(None, h)[1]),
            self.penalty and (lambda w, h: self.penalty(*pack(w, h))),
        )
