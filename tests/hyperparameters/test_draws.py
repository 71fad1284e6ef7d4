"""The named random numbers are Keras's own."""

import keras
import numpy as np
import pytest

from bilevel_tf.hyperparameters import draws


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["uniform", "normal"])
@pytest.mark.parametrize("seed", [7, 2**31 + 5])
def test_draws_are_those_of_keras(name, dtype, seed):
    ours, theirs = keras.random.SeedGenerator(seed), keras.random.SeedGenerator(seed)
    for _ in range(2):
        drawn = getattr(draws, name)((5, 7), dtype, ours)
        expected = getattr(keras.random, name)((5, 7), dtype=dtype, seed=theirs)
        np.testing.assert_array_equal(drawn, expected)


def test_signs_are_equally_likely():
    generator = keras.random.SeedGenerator(3)
    signs = draws.signs((10_000,), "float64", generator).numpy()
    assert set(signs) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05
    assert np.any(signs != draws.signs((10_000,), "float64", generator))
