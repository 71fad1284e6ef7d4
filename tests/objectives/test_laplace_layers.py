"""Hessians by layers, against the entries of the dense Gauss-Newton matrix."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.objectives.evidence import (
    check_derivatives,
    check_graph_and_xla_agree,
    compiled,
    convolutional_network,
    flat_precisions,
    gauss_newton_matrix,
    log_determinant_part,
    penalized,
    regression_data,
    small_network,
    softmax_curvature,
    space,
)

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")

BY_LAYERS = ["diagonal", "kronecker"]
CURVATURES = {
    "gaussian": (2, lambda f: 3.0 * np.eye(len(f))),
    "categorical": (3, softmax_curvature),
    "bernoulli": (1, lambda f: (np.exp(-f) / (1 + np.exp(-f)) ** 2)[:, None]),
}


def blocks(matrix, model):
    """The blocks of single variables."""
    ends = np.cumsum([0] + [np.prod(v.shape) for v in model.trainable_variables])
    pairs = itertools.pairwise(ends)
    return [matrix[start:end, start:end] for start, end in pairs]


def simplified(matrix, model, hessian):
    if hessian == "ggn":
        return np.linalg.slogdet(matrix)[1]
    if hessian == "diagonal":
        return np.log(np.diag(matrix)).sum()
    return sum(np.linalg.slogdet(block)[1] for block in blocks(matrix, model))


@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.parametrize("hessian", ["ggn", "diagonal"])
@pytest.mark.usefixtures("float64")
def test_of_dense_layers(hessian, kind):
    units, curvature = CURVATURES[kind]
    objective = bt.objectives.LaplaceEvidence(hessian)
    model, batch = small_network(objective, kind, units=units)
    matrix = gauss_newton_matrix(model, batch, 9, curvature)
    matrix += np.diag(flat_precisions(model))
    expected = simplified(matrix, model, hessian)
    np.testing.assert_allclose(log_determinant_part(model, batch), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.usefixtures("float64")
def test_kronecker_factors_are_exact_for_one_example(kind):
    units, curvature = CURVATURES[kind]
    objective = bt.objectives.LaplaceEvidence("kronecker")
    model, batch = small_network(objective, kind, units=units)
    batch = batch[0][:1], batch[1][:1], None
    matrix = gauss_newton_matrix(model, batch, 9, curvature)
    matrix += np.diag(flat_precisions(model))
    expected = simplified(matrix, model, "kronecker")
    np.testing.assert_allclose(log_determinant_part(model, batch), expected, rtol=1e-8)


@pytest.mark.parametrize(
    "arguments",
    [
        {"strides": 2, "padding": "same"},
        {"dilation_rate": 2},
        {},
        {"rank": 1, "padding": "causal", "dilation_rate": 2},
        {"rank": 3, "strides": 3},
    ],
)
@pytest.mark.usefixtures("float64")
def test_diagonal_of_a_convolution(arguments):
    objective = bt.objectives.LaplaceEvidence("diagonal")
    model, batch = convolutional_network(objective, **arguments)
    matrix = gauss_newton_matrix(model, batch, 7, CURVATURES["gaussian"][1])
    expected = np.log(np.diag(matrix) + flat_precisions(model)).sum()
    np.testing.assert_allclose(log_determinant_part(model, batch), expected, rtol=1e-10)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.usefixtures("float64")
def test_kronecker_factors_of_a_convolution_with_one_position(rank):
    objective = bt.objectives.LaplaceEvidence("kronecker")
    model, batch = convolutional_network(objective, kernel=5, rank=rank)
    batch = batch[0][:1], batch[1][:1], None
    matrix = gauss_newton_matrix(model, batch, 7, CURVATURES["gaussian"][1])
    matrix += np.diag(flat_precisions(model))
    expected = simplified(matrix, model, "kronecker")
    np.testing.assert_allclose(log_determinant_part(model, batch), expected, rtol=1e-8)


@pytest.mark.usefixtures("float64")
def test_kronecker_factors_of_a_convolution():
    # With a linear output layer of ones, g at every position is tanh' of what left.
    objective = bt.objectives.LaplaceEvidence("kronecker")
    arguments = {"strides": 2, "padding": "same"}
    model, batch = convolutional_network(objective, **arguments)
    convolution, last = [la for la in model.layers if la.trainable_variables]
    last.set_weights([np.ones_like(w) for w in last.get_weights()])
    patches = tf.image.extract_patches(
        batch[0], [1, 2, 2, 1], [1, 2, 2, 1], [1, 1, 1, 1], "SAME"
    )
    a = np.reshape(patches, [4, 9, 8])
    before = a @ np.reshape(convolution.kernel, [8, 3]) + np.array(convolution.bias)
    g = 1 - np.tanh(before) ** 2
    # Two outputs of precision 3, each with these slopes.
    of_inputs = np.einsum("bti,btj->ij", a, a) / 4
    of_slopes = 2 * 3.0 * np.einsum("bto,btp->op", g, g) / (4 * 9)
    kernel = 7 * np.kron(of_inputs, of_slopes) + 2.0 * np.eye(24)
    sums = g.sum(1)
    bias = 7 * 2 * 3.0 * sums.T @ sums / 4 + 0.7 * np.eye(3)
    flat = np.tanh(before).reshape(4, 27)
    head = 7 * 3.0 * flat.T @ flat / 4 + 2.0 * np.eye(27)
    expected = np.linalg.slogdet(kernel)[1] + np.linalg.slogdet(bias)[1]
    expected += 2 * np.linalg.slogdet(head)[1] + 2 * np.log(7 * 3.0 + 0.7)
    np.testing.assert_allclose(log_determinant_part(model, batch), expected, rtol=1e-8)


@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.parametrize("hessian", BY_LAYERS)
@pytest.mark.usefixtures("float64")
def test_derivatives_of_dense_layers(hessian, kind):
    objective = bt.objectives.LaplaceEvidence(hessian)
    check_derivatives(*small_network(objective, kind, units=CURVATURES[kind][0]))


@pytest.mark.parametrize("hessian", BY_LAYERS)
@pytest.mark.usefixtures("float64")
def test_derivatives_of_a_convolution(hessian):
    check_derivatives(*convolutional_network(bt.objectives.LaplaceEvidence(hessian)))


@pytest.mark.parametrize("hessian", BY_LAYERS)
def test_eager_graph_and_xla_agree(hessian):
    model, batch = convolutional_network(bt.objectives.LaplaceEvidence(hessian))
    batch = tf.cast(batch[0], "float32"), tf.cast(batch[1], "float32"), None
    check_graph_and_xla_agree(model, batch)


@pytest.mark.parametrize("hessian", BY_LAYERS)
def test_layers_are_left_as_they_were(hessian):
    model, batch = small_network(bt.objectives.LaplaceEvidence(hessian))
    calls = [layer.call for layer in model.layers]
    log_determinant_part(model, batch)
    assert [layer.call for layer in model.layers] == calls
    assert not any("call" in vars(layer) for layer in model.layers)


@pytest.mark.parametrize("hessian", BY_LAYERS)
def test_a_fit_raises_the_evidence(hessian):
    # A nested model, and every example's label its first inputs' sign.
    hp = space()
    prior = bt.NormalPrior(hp["precision"], data_size=64)
    inputs = keras.Input((5,))
    inner = keras.Sequential([keras.layers.Dense(8, "tanh", **penalized(prior))])
    outputs = keras.layers.Dense(1, "sigmoid", **penalized(prior))(inner(inputs))
    model = compiled(
        hp,
        inputs,
        outputs,
        bt.objectives.LaplaceEvidence(hessian),
        "binary_crossentropy",
        optimizer=keras.optimizers.Adam(0.05),
        hyper_optimizer=keras.optimizers.Adam(0.05),
        method=bt.methods.DARTS(second_order=None),
    )
    x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    y = (x[:, :1] > 0).astype("float32")
    history = model.fit(x, y, batch_size=64, epochs=60, verbose=0).history
    evidence = history["log_evidence"]
    assert evidence[-1] > evidence[10]


@pytest.mark.parametrize("hessian", ["exact", "ggn", *BY_LAYERS])
def test_mixed_precision(hessian):
    values = {}
    for policy in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(0)
        hp = space()
        prior = penalized(bt.NormalPrior(hp["precision"], data_size=20))
        inputs = keras.Input((3,))
        x = keras.layers.Dense(4, activation="tanh", dtype=policy, **prior)(inputs)
        outputs = keras.layers.Dense(1, dtype=policy, **prior)(x)
        model = compiled(hp, inputs, outputs, bt.objectives.LaplaceEvidence(hessian))
        x, y = regression_data()
        values[policy] = model.evaluate_objective(x, y)
    assert abs(values["mixed_bfloat16"] - values["float32"]) < 0.05
