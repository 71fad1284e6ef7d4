"""Hypergradients that half precision cannot hold."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt

# Gradients by the outputs are then some 1e-9; half precision ends at 6e-8.
FACTOR = 1e-6
METHODS = {
    "DeltaSTN": bt.DeltaSTN(entropy_weight=0.0),
    "STN": bt.STN(entropy_weight=0.0),
    "T1T2": bt.methods.T1T2(),
    "ExactImplicit": bt.methods.ExactImplicit(damping=0.1 * FACTOR),
    "ConjugateGradient": bt.ConjugateGradient(3, damping=0.1 * FACTOR),
    "HOAG": bt.methods.HOAG(iterations=3, damping=0.1 * FACTOR),
    "Neumann": bt.Neumann(2),
    "GaussNewton": bt.methods.GaussNewton(3, damping=0.1 * FACTOR),
    "EmpiricalFisher": bt.methods.EmpiricalFisher(3, damping=FACTOR**2),
    "DARTS": bt.methods.DARTS(0.1 / FACTOR),
    "DARTS, difference": bt.methods.DARTS(0.1 / FACTOR, "finite_difference"),
    "Greedy": bt.methods.Greedy(),
    "Unrolled": bt.Unrolled(2),
    "ForwardMode": bt.methods.ForwardMode(2),
    "RMAD": bt.methods.RMAD(2),
    "DrMAD": bt.methods.DrMAD(2),
}


def data(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(32, 3)).astype("float32")
    noise = 0.3 * rng.normal(size=(32, 1)).astype("float32")
    return x, x.sum(1, keepdims=True) + noise


@keras.saving.register_keras_serializable("test_half_precision")
def small_loss(y_true, y_pred):
    errors = keras.ops.cast(y_pred, "float32") - keras.ops.cast(y_true, "float32")
    return FACTOR * keras.ops.mean(errors**2, -1)


def make(policy, method, **arguments):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    hp = bt.HyperparameterSpace(noise=bt.Uniform(0.0, 2.0, initial=0.5), seed=1)
    inputs = keras.Input((3,))
    x = bt.HyperGaussianNoise(hp["noise"], seed=3)(inputs)
    x = bt.HyperDense(4, activation="tanh")(x)
    model = bt.BilevelModel(inputs, bt.HyperDense(1)(x), hyperparameters=hp)
    defaults = {
        "optimizer": keras.optimizers.SGD(0.1 / FACTOR, momentum=0.9),
        "hyper_optimizer": keras.optimizers.SGD(1.0 / FACTOR),
        "loss": small_loss,
    }
    model.compile(method=method, **{**defaults, **arguments})
    rng = np.random.default_rng(5)
    for variable in model.network.response_variables:
        variable.assign(0.5 * rng.normal(size=variable.shape))
    return model


def outer_step(model):
    """How far an outer step moves λ."""
    before = np.array(model.hyperparameters.unconstrained)
    batches = max(1, model.method.inner_batches)
    training = tuple(tf.constant(np.stack([array] * batches)) for array in data(0))
    outer = (*data(1), None), (*training, None)
    model.outer_train_step(outer[: 1 + (model.method.inner_batches > 0)])
    return before - np.array(model.hyperparameters.unconstrained)


@pytest.mark.parametrize("name", METHODS)
def test_a_small_hypergradient_is_that_of_single_precision(name):
    found = [
        outer_step(make(policy, METHODS[name]))
        for policy in ("float32", "mixed_float16")
    ]
    assert np.abs(found[0]) > 1e-7
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def scaled(rate, **arguments):
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate), **arguments)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("name", ["DeltaSTN", "STN", "T1T2", "Unrolled"])
def test_a_hyper_optimizer_may_scale(name, policy):
    plain = outer_step(make(policy, METHODS[name]))
    for optimizer in (
        scaled(1.0 / FACTOR),
        keras.optimizers.SGD(1.0 / FACTOR, loss_scale_factor=128.0),
    ):
        model = make(policy, METHODS[name], hyper_optimizer=optimizer)
        np.testing.assert_allclose(outer_step(model), plain, rtol=1e-5)


RESPONDING = {
    "two passes": bt.DeltaSTN(entropy_weight=0.0),
    "one pass": bt.DeltaSTN(shared_pass=True, entropy_weight=0.0),
    "STN": bt.STN(entropy_weight=0.0),
}


@pytest.mark.parametrize("name", RESPONDING)
@pytest.mark.parametrize("given", ["default", "plain", "another scale"])
def test_responses_train_as_in_single_precision(name, given):
    """Whatever optimizer the user gives them, and however it scales."""

    def moved(policy, response):
        model = make(policy, RESPONDING[name], response_optimizer=response)
        variables = model.network.response_variables
        before = [np.array(v) for v in variables]
        model.train_step((*data(0), None))
        pairs = zip(variables, before, strict=True)
        return np.concatenate([np.ravel(np.array(v) - b) for v, b in pairs])

    rate = 0.1 / FACTOR
    optimizers = {
        "default": lambda: None,
        "plain": lambda: keras.optimizers.SGD(rate),
        "another scale": lambda: scaled(rate, initial_scale=2.0**10),
    }
    expected = moved("float32", keras.optimizers.SGD(rate))
    found = moved("mixed_float16", optimizers[given]())
    assert np.max(np.abs(expected)) > 1e-3
    # Half precision has eleven bits; sums of thirty products are taken.
    size = np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, atol=0.02 * size)


def test_layers_go_back_to_half_precision():
    model = make("mixed_float16", bt.Neumann(2, train_steps=1))
    outer_step(model)
    assert {layer.compute_dtype for layer in model.layers[1:]} == {"float16"}
    assert model(data(0)[0]).dtype == tf.float16
    history = model.fit(*data(0), validation_data=data(1), epochs=3, verbose=0).history
    assert np.all(np.isfinite(history["noise"]))
    assert history["noise"][-1] != history["noise"][0]
