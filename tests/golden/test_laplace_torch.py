"""Log evidences of a trained network against laplace-torch's.

Source: laplace-torch 0.3 (github.com/aleximmer/Laplace), examples/regression_example.py
in float64. `data/laplace_regression.npz` has its x and y, [150, 1], and the trained
weights p0 … p3 of a 1-50-1 tanh network, whose kernels are [out, in].

The two libraries agree on all conventions: one prior precision δ on every weight,
biases too; Gaussian noise σ, so that our noise precision is 1/σ²; the curvature is
summed over all 150 examples; "kronecker" has Σ g gᵀ ⊗ mean a aᵀ for a kernel and Σ g gᵀ
for a bias, each plus δ.

Compared: the evidence by three Hessians at three (δ, σ) and at laplace-torch's best
(δ, σ), within 1e-9 relative, and the gradient there.

At the best (δ, σ) of "kronecker" the listed evidence agrees, but it is no maximum.
laplace-torch multiplies its Kronecker factors by σ⁻² with Python's `math.pow`, which
cuts log |H| off from σ. Its gradient in σ therefore has the likelihood alone, and its
best σ is the root mean squared error of the network. The last test has the maximum.
"""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.objectives.evidence import compiled, evidence_function, penalized, space

HESSIANS = ("ggn", "kronecker", "diagonal")
# (δ, σ): full Gauss-Newton, Kronecker, diagonal.
LOG_EVIDENCE = {
    (1.0, 1.0): (-209.942589398144, -227.348073672193, -381.704861634082),
    (0.1, 0.28): (-59.0525610284, -104.2560240873, -480.5374861987),
    (10.0, 0.3): (-536.136856060793, -554.007721444184, -712.332132637280),
}
# δ, σ, log evidence there.
BEST = {
    "ggn": (0.100594531, 0.281851096, -59.046302971),
    "kronecker": (0.227832151, 0.272230669, -101.516724953),
    "diagonal": (1.018379924, 0.480717922, -360.599770307),
}
# The same by a NumPy copy of the formula above and a root finder: not laplace-torch's.
MAXIMUM_OF_KRONECKER = (0.225005623, 0.295291013, -100.614718604)
DATA = pathlib.Path(__file__).parent / "data" / "laplace_regression.npz"
EVIDENCES = [
    (hessian, *point, values[i])
    for point, values in LOG_EVIDENCE.items()
    for i, hessian in enumerate(HESSIANS)
]


class TrainedNetwork:
    """Their network, as a `BilevelModel` that is judged by its evidence."""

    def __init__(self, hessian):
        with np.load(DATA) as data:
            self.x, self.y = data["x"], data["y"]
            kernel, bias, out_kernel, out_bias = (data[f"p{i}"] for i in range(4))
        self.hp = space()
        prior = bt.NormalPrior(self.hp["precision"], data_size=len(self.x))
        inputs = keras.Input((1,))
        hidden = keras.layers.Dense(50, "tanh", **penalized(prior))(inputs)
        outputs = keras.layers.Dense(1, **penalized(prior))(hidden)
        objective = bt.objectives.LaplaceEvidence(hessian=hessian)
        self.model = compiled(self.hp, inputs, outputs, objective)
        trained = [kernel.T, bias, out_kernel.T, out_bias]
        for variable, value in zip(
            self.model.trainable_variables, trained, strict=True
        ):
            variable.assign(value)

    def log_evidence(self, delta, sigma):
        """log p(D|δ, σ)."""
        self.hp.assign({"precision": delta, "noise": sigma**-2})
        return -len(self.x) * self.model.evaluate_objective(self.x, self.y)

    def gradient(self, delta, sigma):
        """Derivatives of the log evidence by log δ and log σ, the weights held."""
        self.hp.assign({"precision": delta, "noise": sigma**-2})
        batch = tf.constant(self.x), tf.constant(self.y), None
        loss, weights, [h] = evidence_function(self.model, batch)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(h)
            values = self.hp.constrain(h)
            logs = [tf.math.log(values[name]) for name in ("precision", "noise")]
            evidence = -len(self.x) * loss(weights, [h])
        slope = tape.gradient(evidence, h)
        # Every entry of h is a function of one logarithm.
        scale = tf.add_n([tape.gradient(log, h) for log in logs])
        by_log = dict(zip(self.hp.names, np.array(slope / scale), strict=True))
        return by_log["precision"], -2 * by_log["noise"]


@pytest.mark.parametrize(("hessian", "delta", "sigma", "expected"), EVIDENCES)
@pytest.mark.usefixtures("float64")
def test_log_evidence(hessian, delta, sigma, expected):
    found = TrainedNetwork(hessian).log_evidence(delta, sigma)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.usefixtures("float64")
def test_log_evidence_at_the_best(hessian):
    delta, sigma, expected = BEST[hessian]
    found = TrainedNetwork(hessian).log_evidence(delta, sigma)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("hessian", ["ggn", "diagonal"])
@pytest.mark.usefixtures("float64")
def test_gradient_vanishes_at_the_best(hessian):
    delta, sigma, _ = BEST[hessian]
    found = TrainedNetwork(hessian).gradient(delta, sigma)
    np.testing.assert_allclose(found, 0.0, atol=1e-5)


@pytest.mark.usefixtures("float64")
def test_best_of_kronecker_leaves_the_determinant_out_in_sigma():
    network = TrainedNetwork("kronecker")
    delta, sigma, _ = BEST["kronecker"]
    error = network.model(network.x) - network.y
    np.testing.assert_allclose(sigma, np.sqrt(np.mean(error**2)), rtol=1e-8)
    by_delta, by_sigma = network.gradient(delta, sigma)
    np.testing.assert_allclose(by_delta, 0.0, atol=1e-5)

    # The slope in σ that is left is that of the determinant.
    def determinant_part(log_sigma):
        sigma = np.exp(log_sigma)
        residuals = np.sum(error**2) / sigma**2
        log_likelihood = -0.5 * residuals - len(error) * np.log(sigma)
        return network.log_evidence(delta, sigma) - log_likelihood

    start, step = np.log(sigma), 1e-4
    slope = determinant_part(start + step) - determinant_part(start - step)
    np.testing.assert_allclose(by_sigma, slope / (2 * step), rtol=1e-6)
    assert by_sigma > 20


@pytest.mark.usefixtures("float64")
def test_kronecker_has_its_maximum_elsewhere():
    network = TrainedNetwork("kronecker")
    *point, expected = MAXIMUM_OF_KRONECKER
    np.testing.assert_allclose(network.gradient(*point), 0.0, atol=1e-5)
    np.testing.assert_allclose(network.log_evidence(*point), expected, rtol=1e-9)
    assert expected > BEST["kronecker"][2] + 0.9
