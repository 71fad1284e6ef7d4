"""The implicit function theorem with the identity in place of the Hessian."""

import keras
import tensorflow as tf

from bilevel_tf.autodiff import solvers
from bilevel_tf.autodiff.vectors import norm
from bilevel_tf.methods.implicit.implicit import Implicit


@keras.saving.register_keras_serializable("bilevel_tf")
class T1T2(Implicit):
    """H⁻¹ ≈ I: the `Neumann` series with no term and rate 1.

    Reference:
        Luketina et al., "Scalable gradient-based tuning of continuous regularization
        hyperparameters", 2016.
    """

    log_names = ()

    def solve(self, problem, hessian, b):
        """b itself."""
        one = tf.ones_like(norm(b))
        return solvers.Solution(b, tf.constant(0), one, tf.constant(True))
