"""The Gaussian posterior of a linear regression, and MacKay's updates from it."""

import functools

import numpy as np
import tensorflow as tf


class GaussianPosterior:
    """p(w | y) = N(w; w̄, S⁻¹) for y ~ N(Xw, λ⁻¹I) and the prior w ~ N(m, A⁻¹).

    Everything is computed when it is first used, from a Cholesky factor of S. An
    object belongs to the graph that it is made in.

    Args:
        features: X, `[N, n]`.
        targets: y, `[N]`.
        weight_precision: The diagonal of A, a scalar or `[n]`.
        noise_precision: λ, a scalar.
        prior_mean: m, a scalar or `[n]`.
        gram: XᵀX, `[n, n]`, if it is known. Defaults to `None`: it is computed.
    """

    def __init__(
        self,
        features: tf.Tensor,
        targets: tf.Tensor,
        weight_precision: tf.Tensor,
        noise_precision: tf.Tensor,
        prior_mean: tf.Tensor,
        gram: tf.Tensor | None = None,
    ):
        if gram is None:
            gram = tf.matmul(features, features, transpose_a=True)
        count = tf.shape(features)[1]
        self.features = features
        self.targets = targets
        self.weight_precision = weight_precision
        self.noise_precision = noise_precision
        self.gram = gram
        self.precisions = tf.broadcast_to(weight_precision, [count])
        self.prior_mean = tf.broadcast_to(prior_mean, [count])

    @functools.cached_property
    def precision(self) -> tf.Tensor:
        """S = A + λXᵀX, `[n, n]` (Bishop 3.51)."""
        return tf.linalg.diag(self.precisions) + self.noise_precision * self.gram

    @functools.cached_property
    def cholesky(self) -> tf.Tensor:
        """The lower Cholesky factor of S, `[n, n]`."""
        return tf.linalg.cholesky(self.precision)

    @functools.cached_property
    def mean(self) -> tf.Tensor:
        """w̄ = m + λ S⁻¹Xᵀ(y − Xm), `[n]` (Bishop 3.50)."""
        moment = tf.linalg.matvec(
            self.features, self.residuals(self.prior_mean), transpose_a=True
        )
        shift = tf.linalg.cholesky_solve(self.cholesky, moment[:, None])[:, 0]
        return self.prior_mean + self.noise_precision * shift

    @property
    def examples(self) -> tf.Tensor:
        """N, a scalar in the dtype of the features."""
        return tf.cast(tf.shape(self.features)[0], self.features.dtype)

    def residuals(self, weights: tf.Tensor) -> tf.Tensor:
        """Return y − Xw, `[N]`, for weights `[n]`."""
        return self.targets - tf.linalg.matvec(self.features, weights)

    def spread(self, features: tf.Tensor) -> tf.Tensor:
        """Return xᵀS⁻¹x, `[M]`, for every row x of features `[M, n]`."""
        half = tf.linalg.triangular_solve(self.cholesky, tf.transpose(features))
        return tf.reduce_sum(half**2, 0)

    def determined(self) -> tf.Tensor:
        """Return γ_i = 1 − A_i [S⁻¹]_ii, `[n]`: how far the data determine each weight.

        It is computed as λ[S⁻¹XᵀX]_ii, which does not cancel if the prior dominates.
        """
        return tf.linalg.diag_part(
            tf.linalg.cholesky_solve(self.cholesky, self.noise_precision * self.gram)
        )


def mackay_update(
    posterior: GaussianPosterior,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the next A and λ, and how far the present ones are from a fixed point.

    Equations and limits are those of `BayesianLinearRegression.mackay_step`.

    Returns:
        The diagonal of A, with the shape of `posterior.weight_precision`; λ, a scalar;
        and the largest of |∂ log evidence / ∂ log A_i| and
        |∂ log evidence / ∂ log λ| at the present values, a scalar.
    """
    determined = posterior.determined()
    squares = (posterior.mean - posterior.prior_mean) ** 2
    misfit = tf.reduce_sum(posterior.residuals(posterior.mean) ** 2)
    left = posterior.examples - tf.reduce_sum(determined)
    if posterior.weight_precision.shape.rank == 0:
        determined, squares = tf.reduce_sum(determined), tf.reduce_sum(squares)
    slope = tf.maximum(
        tf.reduce_max(tf.abs(determined - posterior.weight_precision * squares)),
        tf.abs(left - posterior.noise_precision * misfit),
    )
    tiny = np.finfo(posterior.features.dtype.as_numpy_dtype).eps
    highest = posterior.noise_precision * tf.linalg.trace(posterior.gram) / tiny
    at_prior = posterior.residuals(posterior.prior_mean)
    least_noise = tiny * tf.reduce_mean(at_prior**2)
    # Rounding may bring γ and N − γ below zero.
    weight_precision = tf.minimum(tf.maximum(determined, tiny) / squares, highest)
    noise = tf.maximum(misfit / tf.maximum(left, tiny), least_noise)
    return weight_precision, 1 / noise, slope / 2
