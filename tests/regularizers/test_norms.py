"""Tuned regularizers: Keras's values, the value in force, and what they refuse."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import references
from bilevel_tf.hyperparameters.pass_in_force import begin_pass

FIXED = {
    "l1": (bt.L1, keras.regularizers.L1, (0.3,)),
    "l2": (bt.L2, keras.regularizers.L2, (0.3,)),
    "l1l2": (bt.regularizers.L1L2, keras.regularizers.L1L2, (0.3, 0.2)),
    "l1_default": (bt.L1, keras.regularizers.L1, ()),
    "l2_default": (bt.L2, keras.regularizers.L2, ()),
    "l1l2_default": (bt.regularizers.L1L2, keras.regularizers.L1L2, ()),
    "zero": (bt.L2, keras.regularizers.L2, (0,)),
}


def fixed(name):
    """Ours and Keras's; some releases of Keras keep the factor in the current dtype."""
    ours, theirs, factors = FIXED[name]
    return ours(*factors), theirs(*factors)


def make():
    return bt.HyperparameterSpace(
        a=bt.LogUniform(1e-4, 1.0, initial=0.1),
        b=bt.Positive(0.5),
        vector=bt.Positive([0.1, 0.2]),
    )


def tuned(space):
    """Tuned regularizers, and their value at weights and factors a and b."""

    def l1(w):
        return np.sum(np.abs(w))

    def l2(w):
        return np.sum(w**2)

    return {
        "l1": (bt.L1(space["a"]), lambda w, a, b: a * l1(w)),
        "l2": (bt.L2(space["b"]), lambda w, a, b: b * l2(w)),
        "l1l2": (
            bt.regularizers.L1L2(space["a"], space["b"]),
            lambda w, a, b: a * l1(w) + b * l2(w),
        ),
        "l1_tuned_l2_fixed": (
            bt.regularizers.L1L2(space["a"], 0.25),
            lambda w, a, b: a * l1(w) + 0.25 * l2(w),
        ),
    }


TUNED = list(tuned(make()))


@pytest.mark.parametrize("name", FIXED)
def test_fixed_factor_is_keras(name, float64):
    ours, theirs = fixed(name)
    weight = np.random.normal(size=(4, 3))
    np.testing.assert_allclose(ours(weight), theirs(tf.constant(weight)), rtol=1e-7)


@pytest.mark.parametrize("name", ["l1", "l2", "l1l2"])
def test_gradient_is_keras(name):
    ours, theirs = fixed(name)
    weight = tf.constant(np.random.normal(size=(4, 3)).astype("float32"))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(weight)
        a, b = ours(weight), theirs(weight)
    np.testing.assert_allclose(
        tape.gradient(a, weight), tape.gradient(b, weight), rtol=1e-6
    )


@pytest.mark.parametrize("name", TUNED)
def test_value_follows_the_hyperparameter(name, float64):
    space = make()
    regularizer, formula = tuned(space)[name]
    weight = np.random.normal(size=(4, 3))
    np.testing.assert_allclose(
        regularizer(weight), formula(weight, 0.1, 0.5), rtol=1e-12
    )
    space.assign({"a": 0.01, "b": 3.0})
    np.testing.assert_allclose(
        regularizer(weight), formula(weight, 0.01, 3.0), rtol=1e-12
    )


@pytest.mark.parametrize("name", TUNED)
def test_takes_the_mean_over_the_examples_factors(name, float64):
    regularizer, formula = tuned(make())[name]
    weight = np.random.normal(size=(4, 3))
    a, b = np.array([0.1, 0.3, 0.8]), np.array([1.0, 2.0, 6.0])
    values = {"a": tf.constant(a), "b": tf.constant(b)}
    with begin_pass(values=values):
        value = regularizer(weight)
    np.testing.assert_allclose(value, formula(weight, a.mean(), b.mean()), rtol=1e-12)


def test_layer_takes_it_as_its_loss(float64):
    space = make()
    layer = bt.HyperDense(3, kernel_regularizer=bt.L2(space["b"]))
    layer(np.ones((2, 4)))
    expected = 0.5 * np.sum(layer.kernel.numpy() ** 2)
    np.testing.assert_allclose(layer.losses, [expected], rtol=1e-12)


def reserialized(regularizer):
    written = json.dumps(keras.saving.serialize_keras_object(regularizer))
    return keras.saving.deserialize_keras_object(json.loads(written))


@pytest.mark.parametrize("name", FIXED)
def test_fixed_config_round_trip(name):
    regularizer = fixed(name)[0]
    again = reserialized(regularizer)
    assert type(again) is type(regularizer)
    assert vars(again) == vars(regularizer)


@pytest.mark.parametrize("name", TUNED)
def test_tuned_config_round_trip(name, float64):
    space = make()
    space.assign({"a": 0.9})
    regularizer, formula = tuned(space)[name]
    again = reserialized(regularizer)
    weight = np.random.normal(size=(4, 3))
    # Not bound to a space, it stands for the initial values.
    np.testing.assert_allclose(again(weight), formula(weight, 0.1, 0.5), rtol=1e-12)
    assert references(again)
    for reference in references(again):
        reference.bind(space)
    np.testing.assert_allclose(again(weight), formula(weight, 0.9, 0.5), rtol=1e-12)


# What is refused

ARGUMENTS = [
    (bt.L1, "l1"),
    (bt.L2, "l2"),
    (bt.regularizers.L1L2, "l1"),
    (bt.regularizers.L1L2, "l2"),
]


@pytest.mark.parametrize(
    "factor", [-0.1, float("nan"), float("inf"), "0.1", None, True]
)
@pytest.mark.parametrize(("regularizer", "argument"), ARGUMENTS)
def test_factor_is_not_a_non_negative_number(regularizer, argument, factor):
    expected = (
        f"`{argument}` of {regularizer.__name__} must be at least 0 and finite: a "
        f"number, or a hyperparameter.*={factor!r}"
    )
    with pytest.raises(ValueError, match=expected):
        regularizer(**{argument: factor})


@pytest.mark.parametrize(("regularizer", "argument"), ARGUMENTS)
def test_a_factor_per_unit(regularizer, argument):
    w = np.array([[1.0, -2.0], [3.0, 4.0], [0.5, 0.0]])
    power = 1 if argument == "l1" else 2
    expected = np.sum(np.array([0.1, 0.2]) * np.abs(w) ** power)
    arguments = {"l1": 0.0, "l2": 0.0} if regularizer is bt.regularizers.L1L2 else {}
    found = regularizer(**{**arguments, argument: make()["vector"]})(w)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_scale_is_no_reference_to_a_hyperparameter():
    with pytest.raises(ValueError, match=r"`l2` of L2 must be .* space\['name'\]"):
        bt.L2(bt.Positive(0.5))
