"""Fixtures that all tests share."""

import keras
import pytest
import tensorflow as tf

from bilevel_tf.training.compiling import influence_checks


@pytest.fixture(autouse=True, scope="session")
def _no_autotuning():
    """Iterate over data sets without the autotuning of tf.data.

    Its thread can miss that its iterator is deleted, and then holds up Python's garbage
    collection for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    iterate = tf.data.Dataset.__iter__

    def iterate_untuned(dataset):
        if not tf.executing_eagerly():
            return iterate(dataset)
        return iterate(dataset.with_options(options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.data.Dataset, "__iter__", iterate_untuned)
        yield


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


@pytest.fixture
def spare_hyperparameters(monkeypatch):
    """Allow hyperparameters that nothing uses, for tests that share a larger space."""
    monkeypatch.setattr(influence_checks, "refuse_unused", lambda network, names: None)
