"""Values in force, in ordinary and in perturbed passes."""

import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import config_of, mean_value, value_for, value_of
from bilevel_tf.hyperparameters.pass_in_force import begin_pass


def make():
    return bt.HyperparameterSpace(
        a=bt.Positive(0.1), vector=bt.Positive([0.1, 0.2, 0.3])
    )


SCALARS = tf.constant([0.1, 0.2])
VECTORS = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def test_value_of(float64):
    space = make()
    assert value_of(0.5, "float32").dtype == tf.float32
    np.testing.assert_allclose(value_of(space["a"], "float64"), 0.1, rtol=1e-12)
    with begin_pass(values={"a": SCALARS}):
        values = value_of(space["a"], "float32")
    assert values.dtype == tf.float32
    np.testing.assert_allclose(values, [0.1, 0.2], rtol=1e-6)


def test_dtype_defaults(float64):
    space = make()
    assert value_of(1).dtype == value_of(space["a"]).dtype == tf.float64
    half = tf.ones([2, 3], "float16")
    assert value_for(1, half).dtype == value_for(space["a"], half).dtype == tf.float16
    assert value_for(1, half, "float32").dtype == tf.float32


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_value_for_broadcasts_over_the_examples(rank):
    space, tensor = make(), tf.ones([2, 5, 6, 3][:rank])
    assert value_for(0.5, tensor).shape == ()
    assert value_for(space["a"], tensor).shape == ()
    with begin_pass(values={"a": SCALARS}):
        assert value_for(0.5, tensor).shape == ()
        value = value_for(space["a"], tensor)
        assert value.shape == (2,) + (1,) * (rank - 1)
        np.testing.assert_array_equal(tf.reshape(value, [-1]), SCALARS)


@pytest.mark.parametrize("rank", [2, 4])
def test_value_for_of_a_vector(rank):
    space, tensor = make(), tf.ones([*[2, 5, 6, 7][: rank - 1], 3])
    assert value_for(space["vector"], tensor).shape == (3,)
    with begin_pass(values={"vector": VECTORS}):
        value = value_for(space["vector"], tensor)
    assert value.shape == (2,) + (1,) * (rank - 2) + (3,)
    np.testing.assert_array_equal(tf.reshape(value, [2, 3]), VECTORS)


def test_a_hyperparameter_that_was_not_read():
    with pytest.raises(TypeError, match=r"Read it in `__init__`.*'name': 'a'"):
        value_of(config_of(make()["a"]))


def test_mean_value():
    space = make()
    assert mean_value(0.5) == 0.5
    np.testing.assert_allclose(mean_value(space["vector"]), [0.1, 0.2, 0.3], rtol=1e-6)
    with begin_pass(values={"a": SCALARS, "vector": VECTORS}):
        assert mean_value(0.5) == 0.5
        np.testing.assert_allclose(mean_value(space["a"]), 0.15, rtol=1e-6)
        np.testing.assert_allclose(mean_value(space["vector"]), [2.5, 3.5, 4.5])


def test_one_value_reads_what_all_read():
    space = make()
    for name, value in space.current().items():
        np.testing.assert_array_equal(space[name].value(), value)
