"""Bayesian linear regression, against SciPy's Gaussians and scikit-learn."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from sklearn.linear_model import BayesianRidge

import bilevel_tf as bt

N, FEATURES = 9, 4
PRECISIONS = {"global": np.float64(0.7), "per_weight": np.array([0.5, 1.0, 2.0, 7.0])}
per_kind = pytest.mark.parametrize("kind", PRECISIONS)


def data(seed=0, count=N):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, FEATURES))
    weights = random.normal(size=FEATURES)
    return x, x @ weights + 0.4 * random.normal(size=count)


def make(x, y, kind, noise_precision=3.0):
    mean = np.array([0.3, 0.0, -0.2, 1.0])
    return bt.objectives.BayesianLinearRegression(
        x, y, PRECISIONS[kind], noise_precision, mean
    )


def marginal(regression):
    """p(y), from its definition."""
    x = regression.features.numpy()
    prior = np.broadcast_to(1 / regression.weight_precision.numpy(), FEATURES)
    noise = np.eye(len(x)) / float(regression.noise_precision)
    mean = x @ np.broadcast_to(regression.prior_mean, FEATURES)
    return scipy.stats.multivariate_normal(mean, x * prior @ x.T + noise)


def slopes(x, y, weight_precision, noise_precision):
    """∂ log evidence / ∂ log A and ∂ log λ."""
    logs = [tf.math.log(weight_precision), tf.math.log(noise_precision)]
    with tf.GradientTape() as tape:
        tape.watch(logs)
        regression = bt.objectives.BayesianLinearRegression(x, y, *map(tf.exp, logs))
        evidence = regression.log_evidence()
    return np.concatenate([np.ravel(g) for g in tape.gradient(evidence, logs)])


# Posterior and predictions


@per_kind
def test_posterior_is_the_joint_gaussian_conditioned(kind):
    """Of (w, y), by the covariance of y alone."""
    x, y = data()
    regression = make(x, y, kind)
    prior = np.diag(np.broadcast_to(1 / PRECISIONS[kind], FEATURES))
    gain = prior @ x.T @ np.linalg.inv(marginal(regression).cov)
    mean = regression.prior_mean + gain @ (y - marginal(regression).mean)
    covariance = prior - gain @ x @ prior
    np.testing.assert_allclose(regression.posterior_mean(), mean, rtol=1e-10)
    found = regression.posterior_covariance()
    np.testing.assert_allclose(found, covariance, atol=1e-12)
    product = regression.posterior_precision() @ covariance
    np.testing.assert_allclose(product, np.eye(FEATURES), atol=1e-12)


@per_kind
def test_prediction_is_a_ratio_of_evidences(kind):
    """p(y* | y) = p(y, y*) / p(y)."""
    x, y = data()
    new_x, new_y = data(1, count=2)
    found = make(x, y, kind).predict(new_x).log_prob(new_y)
    for i in range(2):
        both = make(np.vstack([x, new_x[i]]), np.append(y, new_y[i]), kind)
        expected = marginal(both).logpdf(both.targets) - marginal(
            make(x, y, kind)
        ).logpdf(y)
        np.testing.assert_allclose(found[i], expected, rtol=1e-10)


# Evidence


@pytest.mark.parametrize("count", [1, 3, N])
@per_kind
def test_log_evidence(kind, count):
    """Also with fewer examples than weights."""
    regression = make(*data(count=count), kind)
    expected = marginal(regression).logpdf(regression.targets)
    np.testing.assert_allclose(regression.log_evidence(), expected, rtol=1e-11)


@per_kind
def test_gradient_of_log_evidence(kind):
    x, y = data()
    at = np.log(np.append(PRECISIONS[kind], 3.0))

    def evidence(logs):
        *precisions, noise = np.exp(logs)
        precisions = np.reshape(precisions, PRECISIONS[kind].shape)
        return marginal(
            bt.objectives.BayesianLinearRegression(x, y, precisions, noise)
        ).logpdf(y)

    steps = 1e-5 * np.eye(len(at))
    numeric = [(evidence(at + s) - evidence(at - s)) / 2e-5 for s in steps]
    found = slopes(x, y, PRECISIONS[kind], np.float64(3.0))
    np.testing.assert_allclose(found, numeric, rtol=1e-7, atol=1e-8)


@per_kind
def test_effective_parameters(kind):
    regression = make(*data(), kind)
    variances = np.diag(np.linalg.inv(regression.posterior_precision()))
    expected = np.sum(1 - PRECISIONS[kind] * variances)
    np.testing.assert_allclose(regression.effective_parameters(), expected)


# MacKay's fixed point


@per_kind
def test_mackay_step(kind):
    regression = make(*data(), kind)
    mean = regression.posterior_mean().numpy()
    variances = np.diag(regression.posterior_covariance())
    gamma = 1 - PRECISIONS[kind] * variances
    squares = (mean - regression.prior_mean.numpy()) ** 2
    weight = gamma / squares if kind == "per_weight" else gamma.sum() / squares.sum()
    misfit = np.sum(
        (regression.targets - tf.linalg.matvec(regression.features, mean)) ** 2
    )
    stepped = regression.mackay_step()
    np.testing.assert_allclose(stepped.weight_precision, weight)
    np.testing.assert_allclose(stepped.noise_precision, (N - gamma.sum()) / misfit)
    np.testing.assert_array_equal(stepped.prior_mean, regression.prior_mean)


@pytest.mark.parametrize(
    "start", [1.0, np.ones(FEATURES)], ids=["global", "per_weight"]
)
def test_evidence_is_stationary_at_the_fixed_point(start):
    x, y = data()
    tuned, report = bt.objectives.BayesianLinearRegression(x, y, start).fit_evidence(
        tolerance=1e-10
    )
    assert report["converged"]
    assert 1 < report["iterations"] < 100
    found = tuned.weight_precision, tuned.noise_precision
    np.testing.assert_allclose(slopes(x, y, *found), 0, atol=1e-8)
    for factor in (0.9, 1.1):
        for i in range(2):
            moved = [p * factor if i == j else p for j, p in enumerate(found)]
            other = bt.objectives.BayesianLinearRegression(x, y, *moved)
            assert other.log_evidence() < tuned.log_evidence()


def test_fixed_point_is_that_of_scikit_learn():
    x, y = data()
    flat = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), 0.0)
    theirs = BayesianRidge(
        **flat, fit_intercept=False, tol=1e-14, max_iter=1000, compute_score=True
    ).fit(x, y)
    ours, _ = bt.objectives.BayesianLinearRegression(x, y).fit_evidence(tolerance=1e-13)
    np.testing.assert_allclose(ours.weight_precision, theirs.lambda_, rtol=1e-9)
    np.testing.assert_allclose(ours.noise_precision, theirs.alpha_, rtol=1e-9)
    np.testing.assert_allclose(ours.posterior_mean(), theirs.coef_, rtol=1e-9)
    np.testing.assert_allclose(ours.log_evidence(), theirs.scores_[-1], rtol=1e-9)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3, 1e-4])
def test_stops_after_the_first_step_within_the_tolerance(tolerance):
    x, y = data()
    at = bt.objectives.BayesianLinearRegression(x, y)
    tuned, report = at.fit_evidence(tolerance=tolerance)
    assert report["converged"]
    for _ in range(report["iterations"]):
        slope = slopes(x, y, at.weight_precision, at.noise_precision)
        assert np.abs(slope).max() > tolerance * N
        at = at.mackay_step()
    slope = slopes(x, y, at.weight_precision, at.noise_precision)
    assert np.abs(slope).max() <= tolerance * N
    np.testing.assert_allclose(tuned.weight_precision, at.weight_precision)
    np.testing.assert_allclose(tuned.noise_precision, at.noise_precision)


def test_too_few_iterations_are_reported():
    x, y = data()
    start = bt.objectives.BayesianLinearRegression(x, y)
    tuned, report = start.fit_evidence(iterations=2, tolerance=1e-12)
    assert not report["converged"]
    assert report["iterations"] == 2
    assert report["status"] == bt.methods.Status.OUT_OF_ITERATIONS
    assert report["residual"] > 1e-6
    twice = start.mackay_step().mackay_step()
    np.testing.assert_allclose(tuned.noise_precision, twice.noise_precision)


def test_irrelevant_and_dead_features_end_finite():
    """Their precisions run to infinity, or have no evidence at all."""
    x, _ = data()
    x = np.hstack([x, np.zeros((N, 1))])
    y = x[:, 0] + 0.1 * np.random.default_rng(3).normal(size=N)
    start = bt.objectives.BayesianLinearRegression(x, y, np.ones(FEATURES + 1))
    tuned, report = start.fit_evidence()
    assert report["converged"]
    assert np.all(np.isfinite(tuned.weight_precision))
    assert tuned.weight_precision[0] < 10
    assert tuned.weight_precision[-1] > 1e10
    assert np.isfinite(tuned.log_evidence())


def test_targets_without_noise_end_finite():
    x, _ = data()
    start = bt.objectives.BayesianLinearRegression(x, x[:, 0], prior_mean=0.5)
    tuned, _ = start.fit_evidence(50)
    least = np.finfo(float).eps * np.mean((x[:, 0] - x.sum(1) / 2) ** 2)
    np.testing.assert_allclose(1 / tuned.noise_precision, least)
    np.testing.assert_allclose(tuned.posterior_mean(), [1, 0, 0, 0], atol=1e-7)


def test_step_where_rounding_leaves_no_degrees_of_freedom():
    regression = bt.objectives.BayesianLinearRegression(
        np.eye(3), np.ones(3), 1.0, 1e20
    )
    assert regression.effective_parameters() == 3
    assert np.isfinite(regression.mackay_step().noise_precision)


def test_nan_is_not_reported_as_converged():
    x, y = data()
    y[0] = np.nan
    _, report = bt.objectives.BayesianLinearRegression(x, y).fit_evidence(3)
    assert not report["converged"]


# Held-out examples


@per_kind
def test_sequential_terms(kind):
    x, y = data()
    regression = make(x, y, kind)
    found = regression.sequential_log_predictive()
    total = marginal(regression).logpdf(y)
    np.testing.assert_allclose(tf.reduce_sum(found), total, atol=1e-10)
    first = scipy.stats.norm(
        marginal(regression).mean[0], marginal(regression).cov[0, 0] ** 0.5
    )
    np.testing.assert_allclose(found[0], first.logpdf(y[0]), rtol=1e-10)
    for i in range(1, N):
        before = make(x[:i], y[:i], kind)
        expected = before.predict(x[i : i + 1]).log_prob(y[i])[0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-10)


@per_kind
def test_leave_one_out_is_n_separate_fits(kind):
    x, y = data()
    found = make(x, y, kind).leave_one_out_log_predictive()
    for i in range(N):
        rest = np.arange(N) != i
        without = make(x[rest], y[rest], kind)
        expected = without.predict(x[i : i + 1]).log_prob(y[i])[0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-9)


def test_leave_one_out_is_the_last_term_of_the_chain_rule():
    """Its mean over which example comes last; the sum of all terms is the evidence."""
    x, y = data()
    evidence = make(x, y, "global").log_evidence()
    last = []
    for i in range(N):
        order = np.roll(np.arange(N), -1 - i)
        terms = make(x[order], y[order], "global").sequential_log_predictive()
        np.testing.assert_allclose(tf.reduce_sum(terms), evidence, atol=1e-10)
        last.append(terms[-1])
    found = make(x, y, "global").leave_one_out_log_predictive()
    np.testing.assert_allclose(np.mean(last), tf.reduce_mean(found), rtol=1e-10)
    # The earlier terms, learned from less, are worse: this is what evidence adds.
    assert evidence < tf.reduce_sum(found)


# Where it runs


@pytest.mark.parametrize("jit", [False, True])
def test_in_graphs(jit):
    x, y = data()

    def everything(precision):
        with tf.GradientTape() as tape:
            tape.watch(precision)
            regression = bt.objectives.BayesianLinearRegression(x, y, precision)
            sums = [
                regression.log_evidence(),
                tf.reduce_sum(regression.leave_one_out_log_predictive()),
                tf.reduce_sum(regression.sequential_log_predictive()),
                regression.effective_parameters(),
            ]
            total = tf.add_n(sums)
        tuned, report = regression.fit_evidence()
        return tape.gradient(total, precision), tuned.weight_precision, report

    start = tf.constant(PRECISIONS["per_weight"])
    compiled = tf.function(everything, jit_compile=jit, autograph=False)
    for found, expected in zip(
        tf.nest.flatten(compiled(start)),
        tf.nest.flatten(everything(start)),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_one_trace_for_all_shapes():
    specs = [tf.TensorSpec([None, None], tf.float64), tf.TensorSpec([None], tf.float64)]

    @tf.function(input_signature=specs, autograph=False)
    def tuned_evidence(x, y):
        tuned, _ = bt.objectives.BayesianLinearRegression(x, y).fit_evidence()
        return tuned.log_evidence()

    x, y = data()
    for columns in (2, 4):
        tuned, _ = bt.objectives.BayesianLinearRegression(
            x[:, :columns], y
        ).fit_evidence()
        found = tuned_evidence(x[:, :columns], y)
        np.testing.assert_allclose(found, tuned.log_evidence())


def test_dtype_is_that_of_the_features():
    x, y = data()
    regression = bt.objectives.BayesianLinearRegression(
        x.astype("float32"), y, 2, np.float64(3)
    )
    assert regression.noise_precision.dtype == tf.float32
    tuned, report = regression.fit_evidence()
    assert report["converged"]
    assert tuned.log_evidence().dtype == tf.float32


def test_variables_as_precisions():
    x, y = data()
    noise = tf.Variable(2.0, dtype=tf.float64)
    with tf.GradientTape() as tape:
        regression = bt.objectives.BayesianLinearRegression(x, y, noise_precision=noise)
        evidence = regression.log_evidence()
    expected = slopes(x, y, np.float64(1.0), np.float64(2.0))[-1] / 2
    np.testing.assert_allclose(tape.gradient(evidence, noise), expected)


# Errors


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (np.ones(3), np.ones(3), r"`features` must have shape \[N, n\].*\(3,\)"),
        (np.ones((0, 2)), np.ones(0), r"`features` must have at least one.*\(0, 2\)"),
        (np.ones((3, 0)), np.ones(3), r"`features` must have at least one.*\(3, 0\)"),
        (np.ones((3, 2)), np.ones((3, 2)), r"`targets` must have.*\[N\].*\(3, 2\)"),
        (np.ones((3, 2)), np.ones((3, 1)), r"targets\[:, 0\].*\(3, 1\)"),
        (np.ones((3, 2)), np.ones(4), r"`targets` must.*\(3, 2\).*\(4,\)"),
    ],
)
def test_shapes_of_data(features, targets, message):
    with pytest.raises(ValueError, match=message):
        bt.objectives.BayesianLinearRegression(features, targets)


def test_features_that_are_whole_numbers():
    with pytest.raises(TypeError, match=r"`features` must be floating.*int64"):
        bt.objectives.BayesianLinearRegression(np.ones((3, 2), "int64"), np.ones(3))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("weight_precision", 3, r"one number for each column.*\(9, 4\).*\(3,\)"),
        ("weight_precision", (4, 4), r"one number for each column.*\(4, 4\)"),
        ("noise_precision", 9, r"a scalar.*\(9,\)"),
        ("prior_mean", 9, r"one number for each column.*\(9,\)"),
    ],
)
def test_shapes_of_the_rest(name, shape, message):
    with pytest.raises(ValueError, match=f"`{name}` must.*{message}"):
        bt.objectives.BayesianLinearRegression(*data(), **{name: np.ones(shape)})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["weight_precision", "noise_precision"])
def test_precision_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be positive.*{name}={value}"):
        bt.objectives.BayesianLinearRegression(*data(), **{name: value})


def test_one_precision_of_many_out_of_range():
    with pytest.raises(ValueError, match=r"=\[1.0, 1.0, -2.0, 1.0\]"):
        bt.objectives.BayesianLinearRegression(*data(), np.array([1.0, 1.0, -2.0, 1.0]))


def test_features_to_predict_at():
    regression = bt.objectives.BayesianLinearRegression(*data())
    for shape in ((2, 3), (4,)):
        with pytest.raises(ValueError, match=r"`features` must have as many.*, 4\."):
            regression.predict(np.ones(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 0}, "`iterations` must be a whole number.*=0"),
        ({"iterations": 2.5}, "`iterations` must be a whole number.*=2.5"),
        ({"tolerance": -1.0}, "`tolerance` must not be negative.*=-1.0"),
        ({"tolerance": float("nan")}, "`tolerance` must not be negative.*=nan"),
    ],
)
def test_arguments_of_fit_evidence(arguments, message):
    with pytest.raises(ValueError, match=message):
        bt.objectives.BayesianLinearRegression(*data()).fit_evidence(**arguments)


@pytest.mark.parametrize("step", ["mackay_step", "fit_evidence"])
def test_targets_and_features_without_information_are_refused(step):
    x, _ = data()
    mean = np.array([0.5, -1.0, 0.25, 2.0])
    make_regression = bt.objectives.BayesianLinearRegression
    zero = make_regression(x, np.zeros(N))
    assert np.isfinite(zero.log_evidence())
    with pytest.raises(ValueError, match=r"`targets` must differ .* are all zero"):
        getattr(zero, step)()
    explained = make_regression(x, x @ mean, 1.0, 1.0, mean)
    with pytest.raises(ValueError, match=r"`targets` must differ .* predicts exactly"):
        getattr(explained, step)()
    empty = make_regression(np.zeros((N, FEATURES)), np.ones(N))
    with pytest.raises(ValueError, match="`features` must not be all zero"):
        getattr(empty, step)()
