"""The named random numbers are Keras's own, or as they are said to be."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf import _random


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["uniform", "normal"])
@pytest.mark.parametrize("seed", [7, 2**31 + 5])
def test_draws_are_those_of_keras(name, dtype, seed):
    ours, theirs = keras.random.SeedGenerator(seed), keras.random.SeedGenerator(seed)
    for _ in range(2):
        drawn = getattr(_random, name)((5, 7), dtype, ours)
        expected = getattr(keras.random, name)((5, 7), dtype=dtype, seed=theirs)
        np.testing.assert_array_equal(drawn, expected)


def test_rows_on_one_replica_are_all_rows():
    ours, theirs = keras.random.SeedGenerator(7), keras.random.SeedGenerator(7)
    rows = _random.normal_rows(5, 3, "float64", ours)
    np.testing.assert_array_equal(rows, _random.normal((5, 3), "float64", theirs))


def test_signs_are_equally_likely():
    generator = keras.random.SeedGenerator(3)
    signs = _random.signs((10_000,), "float64", generator).numpy()
    assert set(signs) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05
    assert np.any(signs != _random.signs((10_000,), "float64", generator))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_quick_normals_are_standard_normal(dtype, jit):
    generator = keras.random.SeedGenerator(3)

    @tf.function(jit_compile=jit)
    def draw():
        return _random.quick_normal((200_000,), dtype, generator)

    drawn = np.sort(draw().numpy())
    share = tfp.distributions.Normal(np.zeros([], dtype), 1.0).cdf(drawn).numpy()
    # Kolmogorov's distance of 200,000 draws is above 0.005 once in ten thousand times.
    assert np.max(np.abs(share - np.arange(1, 200_001) / 200_000)) < 0.005
    assert 4.0 < -drawn[0] < 7.0
    assert 4.0 < drawn[-1] < 7.0
    assert not np.array_equal(drawn, np.sort(draw().numpy()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_quick_normals_of_half_precision_are_finite(dtype):
    drawn = _random.quick_normal((200_000,), dtype, keras.random.SeedGenerator(3))
    assert drawn.dtype == dtype
    assert np.all(np.isfinite(tf.cast(drawn, "float32")))
