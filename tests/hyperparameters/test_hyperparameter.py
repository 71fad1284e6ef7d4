"""References: which value they give, and to what they can be bound."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters.pass_in_force import begin_pass


def make():
    return bt.HyperparameterSpace(
        rate=bt.Uniform(0.0, 1.0, initial=0.25), other=bt.Positive([1.0, 2.0])
    )


def unbound(reference):
    """As it comes from a config."""
    written = json.dumps(keras.saving.serialize_keras_object(reference))
    return keras.saving.deserialize_keras_object(json.loads(written))


def test_value_follows_the_space():
    space = make()
    rate = space["rate"]
    np.testing.assert_allclose(rate.value(), 0.25, rtol=1e-6)
    space.assign({"rate": 0.75})
    np.testing.assert_allclose(rate.value(), 0.75, rtol=1e-6)
    assert rate.initial == 0.25


def test_value_is_differentiable():
    space = make()
    with tf.GradientTape() as tape:
        tape.watch(space.unconstrained.value)
        value = space["rate"].value()
    slope = value * (1.0 - value)
    gradient = tape.gradient(value, space.unconstrained.value)
    np.testing.assert_allclose(gradient, [slope, 0.0, 0.0], rtol=1e-6)


def test_value_in_a_perturbed_pass():
    rate = make()["rate"]
    values = {"rate": tf.constant([0.1, 0.2, 0.3])}
    with begin_pass(values=values):
        assert rate.is_perturbed
        np.testing.assert_array_equal(rate.value(), values["rate"])
    assert not rate.is_perturbed
    with begin_pass(delta=tf.zeros([3, 3])):
        assert not rate.is_perturbed
        np.testing.assert_allclose(rate.value(), 0.25, rtol=1e-6)


def test_config_round_trip_is_unbound():
    space = make()
    space.assign({"rate": 0.75})
    rate = unbound(space["rate"])
    assert rate.name == "rate"
    assert rate.scale == space.scales["rate"]
    assert rate.space is None
    assert rate.value() == 0.25


def test_bind():
    space = make()
    space.assign({"rate": 0.75})
    rate = unbound(space["rate"])
    rate.bind(space)
    np.testing.assert_allclose(rate.value(), 0.75, rtol=1e-6)
    rate.bind(space)
    assert rate.space is space


def test_bind_to_another_space():
    with pytest.raises(ValueError, match="'rate' belongs to another Hyper"):
        make()["rate"].bind(make())


def test_bind_to_a_space_without_it():
    rate = unbound(make()["rate"])
    space = bt.HyperparameterSpace(rates=bt.Uniform(0.0, 1.0, initial=0.5))
    with pytest.raises(ValueError, match=r"'rate'\. Did you mean 'rates'"):
        rate.bind(space)
    assert rate.space is None


def test_repr():
    assert repr(make()["rate"]) == "<Hyperparameter rate, initial 0.25>"


# Not a number


@pytest.mark.parametrize("count", [0, 1])
def test_equality_is_identity(count):
    rate, other = make()["rate"], make()["rate"]
    assert [rate, other].count(rate) == 1
    assert rate in {rate: count}
    assert (rate == 0.25) is False


def test_in_text_it_says_what_to_use():
    rate = make()["rate"]
    assert repr(rate) == "<Hyperparameter rate, initial 0.25>"
    assert "value_of" in str(rate) == f"{rate}"
    with pytest.raises(TypeError, match=r"format '\.2f' of hyperparameter 'rate'"):
        f"{rate:.2f}"


def test_a_product_in_a_list_of_numbers():
    with pytest.raises(TypeError, match="is a reference and not a number"):
        np.asarray([1.0, make()["rate"]], "float32")
