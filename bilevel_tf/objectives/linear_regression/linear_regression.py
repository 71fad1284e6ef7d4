"""Bayesian linear regression, judged by its exact evidence."""

import copy
import math

import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf._arguments import check_count
from bilevel_tf.autodiff.solution import Status, choose_status
from bilevel_tf.network.problem import make_report
from bilevel_tf.objectives.linear_regression import linear_checks
from bilevel_tf.objectives.linear_regression.gaussian_posterior import (
    GaussianPosterior,
    mackay_update,
)

tfd = tfp.distributions


class BayesianLinearRegression:
    """Linear regression y ~ N(Xw, λ⁻¹I) with the prior w ~ N(m, A⁻¹), A diagonal.

    All distributions are Gaussian, so that posterior, evidence and cross-validation
    have closed forms. Every method computes its result anew, unless stated otherwise
    from a Cholesky factor of the n × n posterior precision, in O(Nn² + n³). All
    results can be differentiated in all arguments; for that make the regression under
    the tape. It works eagerly and inside `tf.function`, with and without XLA.

    Prefer float64. The condition number of the posterior precision is the square of
    that of X, and single precision often cannot represent such matrices.

    Args:
        features: X, `[N, n]`, one row for each example. Its dtype is that of all
            results. There is no intercept; for one, add a column of ones.
        targets: y, `[N]`.
        weight_precision: The diagonal of A, positive, in units of 1 / w²: a scalar for
            all weights, or `[n]`, one for each. Defaults to 1.
        noise_precision: λ, positive, in units of 1 / y², a scalar. Defaults to 1.
        prior_mean: m, in units of w, a scalar or `[n]`. Defaults to 0.

    Raises:
        TypeError: If the features are not floating-point numbers.
        ValueError: If shapes do not match, there is no example, or a precision is not
            positive and finite. The values of precisions are not checked while a graph
            is traced, since they are not known then.

    Attributes:
        features, targets, weight_precision, noise_precision, prior_mean: The
            arguments, as tensors.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 3))
    >>> y = x @ [1.0, -2.0, 0.0] + 0.1 * rng.normal(size=50)
    >>> regression = bt.objectives.BayesianLinearRegression(x, y)
    >>> tuned, report = regression.fit_evidence()
    >>> bool(report["converged"])
    True
    >>> bool(tuned.log_evidence() > regression.log_evidence())
    True
    >>> tuned.posterior_mean().numpy().round(1).tolist()
    [1.0, -2.0, 0.0]
    >>> tuned.predict(rng.normal(size=(2, 3))).stddev().shape
    TensorShape([2])

    Reference:
        Bishop, *Pattern Recognition and Machine Learning*, 2006, sections 3.3 and 3.5
        (A is α there, and λ is β); MacKay, "Bayesian interpolation", Neural
        Computation 4, 1992.
    """

    def __init__(
        self,
        features: tf.Tensor,
        targets: tf.Tensor,
        weight_precision: tf.Tensor | float = 1.0,
        noise_precision: tf.Tensor | float = 1.0,
        prior_mean: tf.Tensor | float = 0.0,
    ):
        self.features = linear_checks.check_features(features)
        dtype = self.features.dtype
        self.targets = linear_checks.to_tensor(targets, dtype)
        self.weight_precision = linear_checks.to_tensor(weight_precision, dtype)
        self.noise_precision = linear_checks.to_tensor(noise_precision, dtype)
        self.prior_mean = linear_checks.to_tensor(prior_mean, dtype)
        linear_checks.check_shapes(
            self.features,
            self.targets,
            self.weight_precision,
            self.noise_precision,
            self.prior_mean,
        )
        linear_checks.check_precision(self.weight_precision, "weight_precision")
        linear_checks.check_precision(self.noise_precision, "noise_precision")

    # Posterior

    def posterior_precision(self) -> tf.Tensor:
        """Return S = A + λXᵀX, `[n, n]` (Bishop 3.51)."""
        return self._find_posterior().precision

    def posterior_mean(self) -> tf.Tensor:
        """Return w̄ = m + λ S⁻¹Xᵀ(y − Xm), `[n]` (Bishop 3.50)."""
        return self._find_posterior().mean

    def posterior_covariance(self) -> tf.Tensor:
        """Return Σ = S⁻¹, `[n, n]`."""
        identity = tf.eye(tf.shape(self.features)[1], dtype=self.features.dtype)
        return tf.linalg.cholesky_solve(self._find_posterior().cholesky, identity)

    def predict(self, features: tf.Tensor) -> tfd.Normal:
        """Return the predictive distribution of the targets of other examples.

        Args:
            features: Their features, `[M, n]`.

        Returns:
            A `tfd.Normal` of batch shape `[M]` with mean xᵀw̄ and variance
            1 / λ + xᵀΣx, noise included (Bishop 3.58 and 3.59). These are the
            marginals; the targets of several examples are not independent of each
            other.

        Raises:
            ValueError: If `features` does not have the shape `[M, n]`.
        """
        features = linear_checks.to_tensor(features, self.features.dtype)
        linear_checks.check_new_features(features, self.features.shape)
        posterior = self._find_posterior()
        spread = posterior.spread(features)
        mean = tf.linalg.matvec(features, posterior.mean)
        return tfd.Normal(mean, tf.sqrt(1 / self.noise_precision + spread))

    # Evidence

    def log_evidence(self) -> tf.Tensor:
        """Return log p(y | X) = log N(y; Xm, λ⁻¹I + XA⁻¹Xᵀ), a scalar, in nats.

        It is computed from the posterior (Bishop 3.86, generalised to any m and any
        diagonal A):

            ½ (log|A| + N log λ − log|S| − λ‖y − Xw̄‖² − (w̄−m)ᵀA(w̄−m) − N log 2π)
        """
        found = self._find_posterior()
        residuals = found.residuals(found.mean)
        misfit = self.noise_precision * tf.reduce_sum(residuals**2)
        shift = tf.reduce_sum(found.precisions * (found.mean - self.prior_mean) ** 2)
        diagonal = tf.linalg.diag_part(found.cholesky)
        log_ratio = tf.reduce_sum(
            tf.math.log(found.precisions) - 2 * tf.math.log(diagonal)
        )
        log_noise = tf.math.log(self.noise_precision) - math.log(2 * math.pi)
        return (log_ratio + found.examples * log_noise - misfit - shift) / 2

    def effective_parameters(self) -> tf.Tensor:
        """Return γ = Σ_i (1 − A_i Σ_ii), a scalar between 0 and the less of n and N.

        It says how many directions in the space of weights the data determine, rather
        than the prior (MacKay 1992; Bishop 3.91 for one precision, 7.89 for many).
        """
        return tf.reduce_sum(self._find_posterior().determined())

    def mackay_step(self) -> "BayesianLinearRegression":
        """Take one step towards the precisions of greatest evidence.

            A ← γ / ‖w̄ − m‖², or A_i ← γ_i / (w̄_i − m_i)² if each weight has its own;
            λ ← (N − γ) / ‖y − Xw̄‖²

        (Bishop 3.92 and 3.95, 7.87 and 7.88.) The evidence may grow without end, if
        weights tend to exactly m or the targets have no noise. The precisions are
        therefore limited: A to at most λ tr(XᵀX) / ε, and 1 / λ to at least ε times
        the mean square of y − Xm. Here ε is the rounding error of the dtype.

        Returns:
            A regression with these precisions and the same data.

        Raises:
            ValueError: If the features are all zero, or the targets are exactly Xm, as
                targets that are all zero are by default.
        """
        linear_checks.check_informative(self.features, self.targets, self.prior_mean)
        weight_precision, noise_precision, _ = mackay_update(self._find_posterior())
        return self._replace_precisions(weight_precision, noise_precision)

    def fit_evidence(
        self, iterations: int = 1000, tolerance: float = 1e-6
    ) -> tuple["BayesianLinearRegression", dict[str, tf.Tensor]]:
        """Maximise the evidence: repeat `mackay_step` until it is stationary.

        This is type-II maximum likelihood. It starts at the present precisions and
        finds one maximum; the evidence may have several, above all with one precision
        per weight. Do not differentiate through it.

        Args:
            iterations: Largest number of steps. Defaults to 1000.
            tolerance: How large ∂ log evidence / ∂ log A and ∂ log evidence / ∂ log λ
                may be at the end, in nats per example. Defaults to 1e-6, about the
                least that single precision can reach.

        Returns:
            The tuned regression, and a report with the words of a `Hypergradient`'s:
            "status", "converged", "iterations" (the steps taken), and "residual", the
            larger of these two slopes before the last step, in nats per example.

        Raises:
            ValueError: If `iterations` is not a whole number of at least 1,
                `tolerance` is negative, the features are all zero, or the targets are
                exactly Xm, as targets that are all zero are by default.
        """
        check_count(iterations, "iterations", 1)
        linear_checks.check_informative(self.features, self.targets, self.prior_mean)
        linear_checks.check_tolerance(tolerance)
        start = self._find_posterior()
        gram, limit = start.gram, tolerance * start.examples

        def step(taken, running, slope, weight_precision, noise_precision):
            present = self._replace_precisions(weight_precision, noise_precision)
            better = mackay_update(present._find_posterior(gram))
            better_weight, better_noise, slope = better
            # Not `slope > limit`: NaN must go on, and be reported as not converged.
            running = tf.logical_not(slope <= limit)
            weight_precision = tf.where(running, better_weight, weight_precision)
            noise_precision = tf.where(running, better_noise, noise_precision)
            taken += tf.cast(running, tf.int32)
            return taken, running, slope, weight_precision, noise_precision

        unknown = tf.constant(float("nan"), self.features.dtype)
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
        report = make_report(status, taken, slope / start.examples)
        return self._replace_precisions(*tuned), report

    # Predictions of examples that were held out

    def sequential_log_predictive(self) -> tf.Tensor:
        """Return log p(y_i | y_1 … y_{i−1}), `[N]`, in nats; they sum to the evidence.

        Let LLᵀ = λ⁻¹I + XA⁻¹Xᵀ, the covariance of y. The entries of z = L⁻¹(y − Xm)
        are independent and standard normal, and z_i depends only on the first i
        examples. The result is therefore log N(z_i; 0, 1) − log L_ii. This takes
        O(N²n + N³).
        """
        scaled = self.features / tf.sqrt(self.weight_precision)
        noise = tf.fill(tf.shape(self.targets), 1 / self.noise_precision)
        covariance = tf.matmul(scaled, scaled, transpose_b=True)
        cholesky = tf.linalg.cholesky(covariance + tf.linalg.diag(noise))
        prior = self._find_posterior()
        residuals = prior.residuals(prior.prior_mean)[:, None]
        z = tf.linalg.triangular_solve(cholesky, residuals)[:, 0]
        scale = tf.linalg.diag_part(cholesky)
        return tfd.Normal(tf.zeros_like(scale), 1).log_prob(z) - tf.math.log(scale)

    def leave_one_out_log_predictive(self) -> tf.Tensor:
        """Return log p(y_i | all other y), `[N]`, in nats.

        Let K be the covariance of y. Given all others, y_i is Gaussian with variance
        1 / [K⁻¹]_ii, and its mean is off by [K⁻¹(y − Xm)]_i / [K⁻¹]_ii (Rasmussen &
        Williams, *Gaussian Processes for Machine Learning*, 2006, Eq. 5.10 to 5.12).
        Both follow from the posterior: [K⁻¹]_ii = λ(1 − h_i) with h_i = λ x_iᵀΣx_i,
        and K⁻¹(y − Xm) = λ(y − Xw̄).

        Each value is also the last term of the sum in `sequential_log_predictive`, if
        y_i comes last. The evidence has the other terms too, which say how well few
        data predicted.
        """
        posterior = self._find_posterior()
        residuals = posterior.residuals(posterior.mean)
        leverage = self.noise_precision * posterior.spread(self.features)
        variance = 1 / (self.noise_precision * (1 - leverage))
        error = residuals / (1 - leverage)
        return tfd.Normal(tf.zeros_like(error), tf.sqrt(variance)).log_prob(error)

    def _find_posterior(self, gram=None):
        return GaussianPosterior(
            self.features,
            self.targets,
            self.weight_precision,
            self.noise_precision,
            self.prior_mean,
            gram,
        )

    def _replace_precisions(self, weight_precision, noise_precision):
        """Return a copy with other precisions, which are not checked."""
        other = copy.copy(self)
        other.weight_precision = weight_precision
        other.noise_precision = noise_precision
        return other
