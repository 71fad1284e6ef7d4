"""Bayesian linear regression, judged by its exact evidence."""

import copy
import math

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf._arguments import count
from bilevel_tf.autodiff.solution import Status, choose_status
from bilevel_tf.network.problem import make_report
from bilevel_tf.objectives.linear_regression import linear_checks

tfd = tfp.distributions


class BayesianLinearRegression:
    """y ~ N(Xw, λ⁻¹I) with the prior w ~ N(m, A⁻¹), A diagonal.

    Everything that is uncertain is Gaussian, so posterior, evidence and
    cross-validation have closed forms. They are computed anew on every call, from a
    Cholesky factor of the n × n posterior precision where nothing else is said, in
    O(Nn² + n³), and can be differentiated by all arguments: make the regression under
    the tape. Works eagerly and inside `tf.function`, with and without XLA.

    Prefer float64. The posterior precision has the condition number of X squared, and
    single precision is soon at its end with it.

    Args:
        features: X, `[N, n]`; its dtype is that of everything else. There is no
            intercept but a column of ones.
        targets: y, `[N]`.
        weight_precision: The diagonal of A, in units of 1 / w²: a scalar for all
            weights or `[n]`, one for each. Defaults to 1.
        noise_precision: λ, in units of 1 / y², a scalar. Defaults to 1.
        prior_mean: m, a scalar or `[n]`. Defaults to 0.

    Raises:
        TypeError: If features are not floating-point numbers.
        ValueError: If shapes do not match, there is no example, or a precision whose
            value is known here (it is not while a graph is traced) is not positive and
            finite.

    References:
        Bishop, *Pattern Recognition and Machine Learning*, 2006, sections 3.3 and 3.5
        (α there is A here, β is λ).
        MacKay, "Bayesian interpolation", Neural Computation 4, 1992.

    Example:

    >>> regression = bt.objectives.BayesianLinearRegression(x, y)
    >>> tuned, report = regression.fit_evidence()
    >>> tuned.log_evidence(), tuned.predict(x_new).stddev()
    """

    def __init__(
        self,
        features,
        targets,
        weight_precision=1.0,
        noise_precision=1.0,
        prior_mean=0.0,
    ):
        self.features = linear_checks.features(features)
        dtype = self.features.dtype
        self.targets = linear_checks.tensor(targets, dtype)
        self.weight_precision = linear_checks.tensor(weight_precision, dtype)
        self.noise_precision = linear_checks.tensor(noise_precision, dtype)
        self.prior_mean = linear_checks.tensor(prior_mean, dtype)
        linear_checks.check(self)

    # Posterior

    def posterior_precision(self):
        """S = A + λXᵀX, `[n, n]` (Bishop 3.51)."""
        return self._posterior_precision(self._gram())

    def posterior_mean(self):
        """w̄ = m + λ S⁻¹Xᵀ(y − Xm), `[n]` (Bishop 3.50)."""
        return self._posterior_mean(self._cholesky())

    def posterior_covariance(self):
        """Σ = S⁻¹, `[n, n]`."""
        identity = tf.eye(self._n, dtype=self._dtype)
        return tf.linalg.cholesky_solve(self._cholesky(), identity)

    def predict(self, features):
        """Predictive distribution of the targets of other examples, noise included.

        Args:
            features: `[M, n]`.

        Returns:
            A `tfd.Normal` of batch shape `[M]`, of mean xᵀw̄ and variance
            1 / λ + xᵀΣx (Bishop 3.58 and 3.59). Targets of several examples are not
            independent of each other; these are the marginals.

        Raises:
            ValueError: If `features` has not the shape `[M, n]`.
        """
        features = linear_checks.tensor(features, self._dtype)
        if not features.shape.is_compatible_with([None, self.features.shape[1]]):
            raise ValueError(
                "`features` must have as many columns as those that the regression was "
                f"made with, {self.features.shape[1]}. Received: features of shape "
                f"{features.shape}"
            )
        cholesky = self._cholesky()
        spread = self._spread(cholesky, features)
        mean = tf.linalg.matvec(features, self._posterior_mean(cholesky))
        return tfd.Normal(mean, tf.sqrt(1 / self.noise_precision + spread))

    # Evidence

    def log_evidence(self):
        """log p(y | X) = log N(y; Xm, λ⁻¹I + XA⁻¹Xᵀ), in nats, a scalar.

        Computed from the posterior (Bishop 3.86, here for any m and diagonal A):

            ½ (log|A| + N log λ − log|S| − λ‖y − Xw̄‖² − (w̄−m)ᵀA(w̄−m) − N log 2π)
        """
        cholesky = self._cholesky()
        mean = self._posterior_mean(cholesky)
        precisions = self._precisions()
        misfit = self.noise_precision * tf.reduce_sum(self._residuals(mean) ** 2)
        shift = tf.reduce_sum(precisions * (mean - self.prior_mean) ** 2)
        log_ratio = tf.reduce_sum(
            tf.math.log(precisions) - 2 * tf.math.log(tf.linalg.diag_part(cholesky))
        )
        log_noise = tf.math.log(self.noise_precision) - math.log(2 * math.pi)
        return (log_ratio + self._examples * log_noise - misfit - shift) / 2

    def effective_parameters(self):
        """γ = Σ_i (1 − A_i Σ_ii), a scalar from 0 to the less of n and N.

        How many directions in the space of weights are determined by the data rather
        than by the prior (MacKay 1992; Bishop 3.91 for one precision, 7.89 for many).
        """
        return tf.reduce_sum(self._determined(self._cholesky(), self._gram()))

    def mackay_step(self):
        """One step towards the precisions of greatest evidence.

            A ← γ / ‖w̄ − m‖², or A_i ← γ_i / (w̄_i − m_i)² where each has its own;
            λ ← (N − γ) / ‖y − Xw̄‖²

        (Bishop 3.92 and 3.95, 7.87 and 7.88.) Where the evidence grows without end,
        towards weights that are m exactly or targets without noise, the steps end
        where rounding does: A at λ tr(XᵀX) / ε, 1 / λ at ε times the mean square of
        y − Xm, ε the machine's.

        Returns:
            The regression with these precisions.
        """
        weight_precision, noise_precision, _ = self._fixed_point(self._gram())
        return self._at(weight_precision, noise_precision)

    def fit_evidence(self, iterations=1000, tolerance=1e-6):
        """Type-II maximum likelihood: `mackay_step` until the evidence is stationary.

        Starts at the current precisions. The evidence may have several maxima, with
        one precision per weight in particular; this finds one of them. Don't
        differentiate through it.

        Args:
            iterations: Most steps. Defaults to 1000.
            tolerance: How large ∂ log evidence / ∂ log A and ∂ log evidence / ∂ log λ
                may be at the end, in nats per example. Defaults to 1e-6, about what
                single precision can reach.

        Returns:
            The tuned regression, and a report with the words of a `Hypergradient`'s:
            "status", "converged", "iterations" (the steps taken), and "residual", the
            larger of these two slopes before the last step, in nats per example.

        Raises:
            ValueError: If `iterations` is not a whole number of at least 1, or
                `tolerance` negative.
        """
        count(iterations, "iterations", 1)
        if not tolerance >= 0:
            raise ValueError(
                f"`tolerance` must not be negative. Received: tolerance={tolerance!r}"
            )
        gram = self._gram()
        most = tolerance * self._examples

        def step(taken, running, slope, weight_precision, noise_precision):
            at = self._at(weight_precision, noise_precision)
            better_weight, better_noise, slope = at._fixed_point(gram)
            # Written so that NaN keeps running, and is reported.
            running = tf.logical_not(slope <= most)
            weight_precision = tf.where(running, better_weight, weight_precision)
            noise_precision = tf.where(running, better_noise, noise_precision)
            taken += tf.cast(running, tf.int32)
            return taken, running, slope, weight_precision, noise_precision

        unknown = tf.constant(float("nan"), self._dtype)
        taken, running, slope, *tuned = tf.while_loop(
            lambda taken, running, *_: running,
            step,
            (0, True, unknown, self.weight_precision, self.noise_precision),
            maximum_iterations=iterations,
        )
        status = choose_status(
            (tf.logical_not(running), Status.CONVERGED),
            (tf.math.is_finite(slope), Status.OUT_OF_ITERATIONS),
            otherwise=Status.NOT_FINITE,
        )
        report = make_report(status, taken, slope / self._examples)
        return self._at(*tuned), report

    # Predictions of examples that were held out

    def sequential_log_predictive(self):
        """log p(y_i | y_1 … y_{i−1}), in nats, `[N]`; their sum is the log evidence.

        With LLᵀ = λ⁻¹I + XA⁻¹Xᵀ, the covariance of y, z = L⁻¹(y − Xm) are independent
        standard Gaussians, each a function of the examples up to its own alone, so that
        the terms are log N(z_i; 0, 1) − log L_ii. In O(N²n + N³).
        """
        scaled = self.features / tf.sqrt(self.weight_precision)
        noise = tf.fill(tf.shape(self.targets), 1 / self.noise_precision)
        covariance = tf.matmul(scaled, scaled, transpose_b=True)
        cholesky = tf.linalg.cholesky(covariance + tf.linalg.diag(noise))
        residuals = self._residuals(self._prior_mean())[:, None]
        z = tf.linalg.triangular_solve(cholesky, residuals)[:, 0]
        scale = tf.linalg.diag_part(cholesky)
        return tfd.Normal(tf.zeros_like(scale), 1).log_prob(z) - tf.math.log(scale)

    def leave_one_out_log_predictive(self):
        """log p(y_i | all other y), in nats, `[N]`.

        With the covariance K of y, y_i is Gaussian of variance 1 / [K⁻¹]_ii, and its
        mean is off by [K⁻¹(y − Xm)]_i / [K⁻¹]_ii (Rasmussen & Williams, *Gaussian
        Processes for Machine Learning*, 2006, Eq. 5.10 to 5.12). In terms of the
        posterior, [K⁻¹]_ii = λ(1 − h_i) with h_i = λ x_iᵀΣx_i, and K⁻¹(y − Xm) =
        λ(y − Xw̄).

        Each is also the last term of the evidence's chain rule with y_i taken last.
        The evidence has the others too: how well little data predicted.
        """
        cholesky = self._cholesky()
        residuals = self._residuals(self._posterior_mean(cholesky))
        leverage = self.noise_precision * self._spread(cholesky, self.features)
        variance = 1 / (self.noise_precision * (1 - leverage))
        error = residuals / (1 - leverage)
        return tfd.Normal(tf.zeros_like(error), tf.sqrt(variance)).log_prob(error)

    # The algebra that these share

    @property
    def _dtype(self):
        return self.features.dtype

    @property
    def _n(self):
        return tf.shape(self.features)[1]

    @property
    def _examples(self):
        """N, in the dtype of the features."""
        return tf.cast(tf.shape(self.features)[0], self._dtype)

    def _at(self, weight_precision, noise_precision):
        """The same with other precisions, which are not checked."""
        other = copy.copy(self)
        other.weight_precision = weight_precision
        other.noise_precision = noise_precision
        return other

    def _precisions(self):
        """The diagonal of A, `[n]`."""
        return tf.broadcast_to(self.weight_precision, [self._n])

    def _prior_mean(self):
        """m, `[n]`."""
        return tf.broadcast_to(self.prior_mean, [self._n])

    def _residuals(self, weights):
        return self.targets - tf.linalg.matvec(self.features, weights)

    def _gram(self):
        return tf.matmul(self.features, self.features, transpose_a=True)

    def _posterior_precision(self, gram):
        return tf.linalg.diag(self._precisions()) + self.noise_precision * gram

    def _cholesky(self):
        return tf.linalg.cholesky(self.posterior_precision())

    def _posterior_mean(self, cholesky):
        moment = tf.linalg.matvec(
            self.features, self._residuals(self._prior_mean()), transpose_a=True
        )
        shift = tf.linalg.cholesky_solve(cholesky, moment[:, None])[:, 0]
        return self.prior_mean + self.noise_precision * shift

    def _spread(self, cholesky, features):
        """xᵀΣx of every row."""
        half = tf.linalg.triangular_solve(cholesky, tf.transpose(features))
        return tf.reduce_sum(half**2, 0)

    def _determined(self, cholesky, gram):
        """γ_i = 1 − A_i Σ_ii, `[n]`."""
        # As λ[ΣXᵀX]_ii, which does not cancel where the prior decides.
        return tf.linalg.diag_part(
            tf.linalg.cholesky_solve(cholesky, self.noise_precision * gram)
        )

    def _fixed_point(self, gram):
        """MacKay's updates, and the largest slope of the log evidence before them."""
        cholesky = tf.linalg.cholesky(self._posterior_precision(gram))
        mean = self._posterior_mean(cholesky)
        determined = self._determined(cholesky, gram)
        squares = (mean - self.prior_mean) ** 2
        misfit = tf.reduce_sum(self._residuals(mean) ** 2)
        left = self._examples - tf.reduce_sum(determined)
        if self.weight_precision.shape.rank == 0:
            determined, squares = tf.reduce_sum(determined), tf.reduce_sum(squares)
        slope = tf.maximum(
            tf.reduce_max(tf.abs(determined - self.weight_precision * squares)),
            tf.abs(left - self.noise_precision * misfit),
        )
        tiny = np.finfo(self._dtype.as_numpy_dtype).eps
        highest = self.noise_precision * tf.linalg.trace(gram) / tiny
        least_noise = tiny * tf.reduce_mean(self._residuals(self._prior_mean()) ** 2)
        # Rounding may bring γ and N − γ below zero.
        weight_precision = tf.minimum(tf.maximum(determined, tiny) / squares, highest)
        noise = tf.maximum(misfit / tf.maximum(left, tiny), least_noise)
        return weight_precision, 1 / noise, slope / 2
