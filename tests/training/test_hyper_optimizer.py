"""The default optimizer of hyperparameters, and outer steps that are too large."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.training.compiling.optimizer_arguments import default_hyper_optimizer
from bilevel_tf.training.fitting.lost_hyperparameters import find_lost

# A value next to each end, and the sign of the hypergradient that leads back.
NEAR_ENDS = {
    "uniform_low": (bt.Uniform(0.0, 0.9, initial=1e-5), -1),
    "uniform_high": (bt.Uniform(0.0, 0.9, initial=0.9 - 1e-5), 1),
    "log_uniform_low": (bt.LogUniform(1e-7, 1.0, initial=1.001e-7), -1),
    "log_uniform_high": (bt.LogUniform(1e-7, 1.0, initial=0.9999), 1),
    "positive_low": (bt.Positive(1e-6), -1),
    "positive_high": (bt.Positive(1e3), 1),
    "unconstrained_low": (bt.Unconstrained(-1e3), -1),
    "unconstrained_high": (bt.Unconstrained(1e3), 1),
}


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("case", NEAR_ENDS)
def test_moves_at_one_speed_however_small_hypergradients_are(case, size):
    scale, sign = NEAR_ENDS[case]
    space = bt.HyperparameterSpace(x=scale)
    start = float(space.unconstrained[0])
    with tf.GradientTape() as tape:
        tape.watch(space.unconstrained.value)
        value = space["x"].value()
    slope = tape.gradient(value, space.unconstrained.value)
    # A loss whose hypergradient is of that size here.
    factor = sign * size / slope[0]
    optimizer = default_hyper_optimizer()
    optimizer.build([space.unconstrained])
    for _ in range(20):
        with tf.GradientTape() as tape:
            tape.watch(space.unconstrained.value)
            loss = factor * space["x"].value()
        gradient = tape.gradient(loss, space.unconstrained.value)
        optimizer.apply([gradient], [space.unconstrained])
    # RMSprop's step is its learning rate over √(1 − 0.9ᵗ) if the gradient is constant.
    speed = np.sum(1e-2 / np.sqrt(1 - 0.9 ** np.arange(1, 21)))
    moved = -sign * (float(space.unconstrained[0]) - start)
    np.testing.assert_allclose(moved, speed, rtol=0.1)


def test_nothing_moves_without_a_hypergradient():
    variable = keras.Variable([1.0, 2.0])
    optimizer = default_hyper_optimizer()
    optimizer.apply([tf.zeros(2)], [variable])
    np.testing.assert_array_equal(variable, [1.0, 2.0])


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_fit_brings_back_a_weight_decay_from_the_low_end(policy):
    keras.config.set_dtype_policy(policy)
    space = bt.HyperparameterSpace(l2=bt.LogUniform(1e-7, 1.0, initial=1e-6))
    inputs = keras.Input((4,))
    layer = keras.layers.Dense(
        1,
        use_bias=False,
        kernel_regularizer=bt.L2(space["l2"]),
        kernel_initializer="ones",
    )
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=space)
    model.compile(
        keras.optimizers.SGD(0.05), loss="mse", method=bt.methods.T1T2(train_steps=1)
    )
    # Ever less weight would be better, and the penalty is all but nothing.
    x, y = np.eye(4, dtype="float32"), np.ones((4, 1), "float32")
    start = float(space.unconstrained[0])
    model.fit(x, y, 4, epochs=100, validation_data=(x, 0.0 * y), verbose=0)
    assert float(space.unconstrained[0]) - start > 0.9


def test_own_optimizers_stay_what_they_are():
    model, _ = make_model(bt.Positive(1.0), "rmsprop")
    assert model.hyper_optimizer.epsilon == 1e-7
    adam = keras.optimizers.Adam()
    model, _ = make_model(bt.Positive(1.0), adam)
    assert model.hyper_optimizer is adam


# Outer steps that are too large


def make_model(scale, hyper_optimizer, **options):
    space = bt.HyperparameterSpace(x=scale)
    inputs = keras.Input((3,))
    layer = keras.layers.Dense(1, kernel_regularizer=bt.L2(space["x"]))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=space)
    model.compile(
        keras.optimizers.SGD(0.01),
        loss="mse",
        method=bt.methods.T1T2(train_steps=2),
        hyper_optimizer=hyper_optimizer,
        **options,
    )
    return model, space


def fit(model):
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    y = x.sum(1, keepdims=True)
    return model.fit(x, y, 4, epochs=2, validation_data=(x, y), verbose=0)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_to_the_end_of_a_range_warns(jit_compile):
    model, space = make_model(
        bt.LogUniform(1e-6, 1.0, initial=1e-2),
        keras.optimizers.SGD(1e9),
        jit_compile=jit_compile,
    )
    with pytest.warns(RuntimeWarning, match="took x.* to the end of its range"):
        fit(model)
    assert "x" in find_lost(space)
    assert np.all(np.isfinite(space.unconstrained))


def test_an_error_after_a_step_that_was_too_large_says_so():
    model, space = make_model(bt.Positive(0.1), keras.optimizers.SGD(1e30))
    before = space.unconstrained.numpy()
    with pytest.raises(
        FloatingPointError, match=r"learning rate of `hyper_optimizer`"
    ) as caught:
        fit(model)
    assert "set `clipnorm` in the optimizers" not in str(caught.value)
    np.testing.assert_array_equal(space.unconstrained, before)


def test_an_error_without_such_a_step_keeps_the_usual_causes():
    model, _ = make_model(bt.Positive(0.1), keras.optimizers.SGD(1e-3))
    x, valid = np.full((16, 3), np.nan, "float32"), np.ones((16, 3), "float32")
    with pytest.raises(FloatingPointError, match="look for NaN in the training"):
        model.fit(x, x[:, :1], 4, validation_data=(valid, valid[:, :1]), verbose=0)


def test_finds_what_is_lost():
    space = bt.HyperparameterSpace(
        a=bt.Uniform(0.0, 1.0, initial=0.5),
        count=bt.Integer(0, 5, initial=2),
        b=bt.Uniform(0.0, 1.0, initial=[0.5, 0.25]),
        c=bt.Positive(1.0),
    )
    assert find_lost(space) == []
    space.unconstrained.assign([200.0, 1e9, 0.0, -130.0, 1e30])
    assert find_lost(space) == ["a", "b"]
    space.unconstrained.assign([0.0, 0.0, 0.0, 0.0, np.inf])
    assert find_lost(space) == ["c"]
