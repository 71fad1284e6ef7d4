"""Copies of optimizers that train other variables beside the weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.optimizers.following import copy_beside, follow_space


def variables(name):
    return [keras.Variable(np.ones(3), name=f"{name}_{i}") for i in range(2)]


def make_space():
    return bt.HyperparameterSpace(rate=bt.Positive(0.2))


def tenth():
    return 0.1


def step(optimizer, over):
    optimizer.apply([tf.fill([3], 0.5) for _ in over], over)
    return [np.array(v) for v in over]


@pytest.mark.parametrize(
    "rate",
    [0.1, keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5), tenth],
    ids=["number", "schedule", "function"],
)
def test_the_copy_steps_as_the_original(rate):
    weights, others = variables("weight"), variables("other")
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(weights)
    copy = copy_beside(optimizer, others, weights, make_space())
    for _ in range(3):
        expected = step(optimizer, weights)
        np.testing.assert_allclose(step(copy, others), expected, rtol=1e-6)


def test_a_rate_set_later_is_followed():
    weights, others = variables("weight"), variables("other")
    optimizer = keras.optimizers.SGD(0.1)
    copy = copy_beside(optimizer, others, weights, make_space())
    optimizer.learning_rate = 0.4
    np.testing.assert_allclose(step(copy, others)[0], np.full(3, 0.8), rtol=1e-6)
    # Not a variable of its own: slots and the number of steps are all it has.
    assert len(copy.variables) == len(optimizer.variables) - 1


def test_what_is_excluded_from_weight_decay_stays_so():
    weights, others = variables("weight"), variables("other")
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["weight_1"])
    copy = copy_beside(optimizer, others, weights, make_space())
    decayed, kept = step(copy, others)
    np.testing.assert_allclose(decayed, np.full(3, 0.9), rtol=1e-6)
    np.testing.assert_allclose(kept, np.full(3, 0.95), rtol=1e-6)


def test_tuned_numbers_are_those_of_the_space():
    hp = make_space()
    weights, others = variables("weight"), variables("other")
    optimizer = bt.TunedOptimizer(keras.optimizers.SGD(9.0), learning_rate=hp["rate"])
    follow_space(optimizer, hp)
    copy = copy_beside(optimizer, others, weights, hp)
    assert isinstance(copy, bt.TunedOptimizer)
    np.testing.assert_allclose(step(copy.optimizer, others)[0], 0.9, rtol=1e-6)
    hp.assign({"rate": 0.4})
    np.testing.assert_allclose(step(copy.optimizer, others)[0], 0.7, rtol=1e-6)
