"""The implicit function theorem with the dense Hessian."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import count, non_negative
from bilevel_tf.autodiff import solvers
from bilevel_tf.autodiff.vectors import flatten, unflatten
from bilevel_tf.methods.implicit.implicit import Implicit


@keras.saving.register_keras_serializable("bilevel_tf")
class ExactImplicit(Implicit):
    """The dense Hessian, solved exactly; for small models.

    Args:
        damping: Added to the diagonal of H. Defaults to 0.
        max_weights: Largest number of weights allowed, since H has its square of
            entries. Defaults to 2,000 (32 MB in double precision).
        **kwargs: See `Method`.

    Raises:
        ValueError: At the call, if there are more weights.

    Reference:
        Bengio, "Gradient-based optimization of hyperparameters", 2000.
    """

    def __init__(self, damping=0.0, max_weights=2000, **kwargs):
        super().__init__(**kwargs)
        self.damping = non_negative(damping, "damping")
        self.max_weights = count(max_weights, "max_weights", 1)

    def solve(self, problem, hessian, b):
        """By QR decomposition; not converged if H is singular to rounding."""
        size = sum(w.shape.num_elements() for w in problem.weights)
        if size > self.max_weights:
            raise ValueError(
                f"An exact Hessian of {size:,} weights has {size**2:,} entries; "
                f"max_weights={self.max_weights:,}. Use "
                "bilevel_tf.ConjugateGradient() or bilevel_tf.Neumann(), which never "
                "form it, or raise `max_weights`."
            )
        vector = flatten(b)
        matrix = hessian.dense()
        matrix += self.damping * tf.eye(size, dtype=matrix.dtype)
        # XLA has no LU decomposition.
        q, r = tf.linalg.qr(matrix)
        rotated = tf.linalg.matvec(q, vector, transpose_a=True)
        solved = tf.linalg.triangular_solve(r, rotated[:, None], lower=False)[:, 0]
        left = tf.linalg.norm(tf.linalg.matvec(matrix, solved) - vector)
        left = tf.math.divide_no_nan(left, tf.linalg.norm(vector))
        pivots = tf.abs(tf.linalg.diag_part(r))
        rounding = size * np.finfo(matrix.dtype.as_numpy_dtype).eps
        regular = tf.reduce_min(pivots) > rounding * tf.reduce_max(pivots)
        converged = regular & tf.math.is_finite(left)
        x = unflatten(solved, b)
        return solvers.Solution(x, tf.constant(size), left, converged)

    def get_config(self):
        return {
            **super().get_config(),
            "damping": self.damping,
            "max_weights": self.max_weights,
        }
