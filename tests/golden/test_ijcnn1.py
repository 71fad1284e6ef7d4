"""Value and gradient of an outer function on ijcnn1, as benchmark_bilevel has it.

Source: benchopt/benchmark_bilevel (github.com/benchopt/benchmark_bilevel), its
logistic regression on ijcnn1 (LIBSVM's binary sets; 49,990 training and 91,701 test
rows of 22 features):

    inner   g = mean log(1 + exp(−y xᵀw)) + ½ Σ exp(λ_j) w_j², training rows
    outer   h = mean log(1 + exp(−y xᵀw)), test rows, at the minimiser of g

Compared: h and ‖∇h‖², the sum of squares over the 22 derivatives by λ_j, at two λ that
are equal in all entries, by `bt.hypergradient`. Tolerance: 1e-8 relative for h. The
squared norm is given to eight digits, and one unit of the last of them is allowed: at
λ = −5 its value in extended precision is 2.74827001e-4, so that the last digit listed
is one too high.

The files are looked for in the folder that the environment variable
`BILEVEL_TF_GOLDEN_DATA` names, else in the folder `data` beside this file.
The same check runs without them, on synthetic rows against the dense formula.
"""

import bz2
import os
import pathlib

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import bilevel_tf as bt

# λ: h, ‖∇h‖², one unit of its last digit.
LISTED = {
    0.0: (0.65706324963, 2.6109097e-4, 1e-11),
    -5.0: (0.30395558917, 2.7482701e-4, 1e-11),
}
FOLDER = pathlib.Path(
    os.environ.get("BILEVEL_TF_GOLDEN_DATA", pathlib.Path(__file__).parent / "data")
)
METHODS = {
    "exact": bt.methods.ExactImplicit(),
    "conjugate gradient": bt.ConjugateGradient(iterations=100, tolerance=1e-13),
}


class LogisticRegression:
    """Both losses, the minimiser of the inner one, and exact formulas.

    Args:
        train, test: Pairs of x, `[n, d]`, and labels of −1 or 1.
        h: λ, `[d]`.
    """

    def __init__(self, train, test, h):
        self.train, self.test, self.h = train, test, h

    def inner(self, w, h):
        return mean_logistic_loss(*self.train, w) + 0.5 * tf.reduce_sum(
            tf.exp(h) * w**2
        )

    def outer(self, w, h):
        return mean_logistic_loss(*self.test, w)

    def hessian(self, w):
        """∂²g/∂w²."""
        x, y = self.train
        p = scipy.special.expit(y * (x @ w))
        return (x.T * (p * (1 - p))) @ x / len(y) + np.diag(np.exp(self.h))

    def minimizer(self):
        """w*, by Newton's method."""
        w = np.zeros_like(self.h)
        for _ in range(20):
            slope = slope_of_mean(*self.train, w) + np.exp(self.h) * w
            w -= np.linalg.solve(self.hessian(w), slope)
        assert np.max(np.abs(slope)) < 1e-14
        return w

    def exact_hypergradient(self, w):
        """∇h = −exp(λ) w · H⁻¹ ∂h/∂w."""
        solved = np.linalg.solve(self.hessian(w), slope_of_mean(*self.test, w))
        return -np.exp(self.h) * w * solved

    def hypergradient(self, w, method):
        """A `Hypergradient`, as this library has it."""
        point = tf.constant(w), tf.constant(self.h)
        return bt.hypergradient(self.inner, self.outer, *point, method)


def mean_logistic_loss(x, y, w):
    return tf.reduce_mean(tf.nn.softplus(-y * tf.linalg.matvec(x, w)))


def slope_of_mean(x, y, w):
    """∂/∂w of the mean logistic loss."""
    return -x.T @ (y * scipy.special.expit(-y * (x @ w))) / len(y)


def read(name):
    """x and y of a file in LIBSVM's format: a label, then pairs of number and value."""
    with bz2.open(FOLDER / name, "rt") as file:
        rows = [line.split() for line in file]
    x = np.zeros((len(rows), 22))
    for row, (_, *entries) in zip(x, rows, strict=True):
        for entry in entries:
            feature, value = entry.split(":")
            row[int(feature) - 1] = float(value)
    return x, np.array([float(label) for label, *_ in rows])


@pytest.fixture(scope="module")
def ijcnn1():
    if not (FOLDER / "ijcnn1.trn.bz2").exists():
        pytest.skip("ijcnn1 is absent: see this module's docstring")
    return read("ijcnn1.trn.bz2"), read("ijcnn1.tst.bz2")


@pytest.mark.big_data
@pytest.mark.parametrize("value", LISTED)
def test_ijcnn1(ijcnn1, value):
    assert [len(y) for _, y in ijcnn1] == [49_990, 91_701]
    problem = LogisticRegression(*ijcnn1, np.full(22, value))
    w = problem.minimizer()
    outer_loss, squared_norm, unit = LISTED[value]
    exact = problem.exact_hypergradient(w)
    for method in METHODS.values():
        found = problem.hypergradient(w, method)
        np.testing.assert_allclose(found.outer_loss, outer_loss, rtol=1e-8)
        np.testing.assert_allclose(
            np.sum(found.gradients**2), squared_norm, rtol=0, atol=unit
        )
        np.testing.assert_allclose(found.gradients, exact, rtol=1e-8)


@pytest.mark.parametrize("name", METHODS)
def test_synthetic_rows_agree_with_the_dense_formula(name):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=22)

    def rows(count):
        x = rng.normal(size=(count, 22))
        return x, np.sign(x @ truth + rng.logistic(size=count))

    problem = LogisticRegression(rows(200), rows(300), rng.normal(-2, 1, size=22))
    w = problem.minimizer()
    found = problem.hypergradient(w, METHODS[name])
    assert found.report["converged"]
    np.testing.assert_allclose(
        found.gradients, problem.exact_hypergradient(w), rtol=1e-8
    )
