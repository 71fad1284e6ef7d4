"""Training under a `tf.distribute` strategy equals training without."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.training import models, two_replicas

# One case of each way that an outer step takes.
QUICK = (
    "DeltaSTN",
    "STN",
    "ExactImplicit",
    "HOAG",
    "DARTS",
    "Unrolled, restart",
    "ELBO",
    "MacKayUpdate",
)
OTHERS = tuple(name for name in two_replicas.CASES if name not in QUICK)


def run_two_replicas(names):
    """The results of the program that has two logical CPUs."""
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.training.two_replicas", *names]
    run = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def assert_equal_to_one_device(results, names):
    for name in names:
        difference, moved = results[name]
        assert difference < 1e-8, name
        assert moved > 1e-3, name


def test_two_replicas_equal_one_device():
    results = run_two_replicas(QUICK)
    assert_equal_to_one_device(results, QUICK)
    for name, error in results["refused"].items():
        assert f"`{name}` must be" in error
        assert "several replicas" in error
        assert "2 replicas" in error
    # Examples on different replicas have noise of their own. Two units of dropout
    # with the rate one half are equal with probability one half.
    assert results["noise"] == 0.0
    assert 0.4 < results["dropout"] < 0.6
    # TensorFlow writes into arrays that were cut for the replicas.
    assert all(results["intact"])


@pytest.mark.slow
def test_two_replicas_equal_one_device_for_all_other_methods():
    assert_equal_to_one_device(run_two_replicas(OTHERS), OTHERS)


def make(strategy, method):
    with strategy.scope():
        return models.classifier(method)


def fit(model):
    x, y = models.data(24)
    model.fit(x, y, 8, epochs=2, validation_data=models.data(16, seed=1), verbose=0)
    return model


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: tf.distribute.OneDeviceStrategy("cpu:0"),
        lambda: tf.distribute.MirroredStrategy(["cpu:0"]),
    ],
    ids=["one device", "one replica"],
)
def test_one_replica_is_as_no_strategy(strategy, tmp_path):
    strategy = strategy()
    with_strategy = fit(make(strategy, bt.DeltaSTN(train_steps=2)))
    keras.utils.set_random_seed(0)
    without = fit(models.classifier(bt.DeltaSTN(train_steps=2)))
    models.assert_same_state(with_strategy, without, rtol=1e-4)

    with_strategy.save(tmp_path / "model.keras")
    with strategy.scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.network.strategy is strategy
        x, y = models.data(8)
        # A call in the scope gives the whole loss, not the share of a replica.
        value = loaded.evaluate_objective(x, y)
    assert value == pytest.approx(without.evaluate_objective(x, y), rel=1e-4)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), without.predict(x, verbose=0), rtol=1e-4
    )
    keras.utils.set_random_seed(1)
    fit(loaded)
