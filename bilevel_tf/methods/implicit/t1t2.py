"""The implicit function theorem with the identity in place of the Hessian."""

import keras
import tensorflow as tf

from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.solution import Solution, Status, choose_status
from bilevel_tf.autodiff.vectors import all_finite
from bilevel_tf.methods.implicit.implicit import Implicit
from bilevel_tf.network.problem import Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class T1T2(Implicit):
    """The implicit function theorem with H⁻¹ ≈ I.

    This is the `Neumann` series with no terms and learning rate 1. It takes no product
    with the Hessian, and measures no residual. The hypergradient has often the right
    sign, but not the right size.

    Args:
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If there is no argument of that name.

    Reference:
        Luketina et al., "Scalable gradient-based tuning of continuous regularization
        hyperparameters", 2016.

    Example: here H = 4, so that the hypergradient −0.25 comes out four times too large.

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.methods.T1T2())
    >>> float(result.gradients)
    -1.0
    """

    log_names = ()

    def solve(self, problem: Problem, hessian: Hessian, b: list[tf.Tensor]) -> Solution:
        """b itself."""
        status = choose_status((~all_finite(b), Status.NOT_FINITE))
        return Solution(b, tf.constant(0), tf.constant(float("nan")), status)
