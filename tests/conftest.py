"""Fixtures that all tests share."""

import keras
import pytest


@pytest.fixture(autouse=True)
def _seeded_and_clean():
    """Every test starts from one seed and Keras's default float."""
    keras.utils.set_random_seed(0)
    yield
    keras.backend.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=False)


@pytest.fixture
def float64():
    """Run a test in double precision."""
    keras.backend.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
