"""The comparison of methods in small."""

import method_comparison as comparison
import numpy as np
import pytest
import tensorflow as tf
from tanh_network import TanhNetwork

SMALL = ["--examples=40", "--width=2", "--steps=4", "--seconds=0"]


def run(tmp_path, *arguments):
    folders = [f"--output={tmp_path}", f"--saved-model={tmp_path / 'saved'}"]
    rows = comparison.main([*SMALL, *folders, *arguments])
    return {row["method"]: row for row in rows}


def test_in_small(tmp_path, capsys):
    rows = run(tmp_path, "--methods", "T1T2", "RMAD")
    assert rows["ExactImplicit"]["error"] == rows["Unrolled"]["own_error"] == 0.0
    assert rows["RMAD"]["own_error"] < 1e-6
    assert rows["T1T2"]["error"] > 1e-3
    assert all(np.isfinite(row["test_at_end"]) for row in rows.values())
    assert "RMAD" in capsys.readouterr().out
    assert (tmp_path / "method_comparison.png").stat().st_size > 1000
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    assert saved.serve(tf.zeros((2, 64))).shape == (2, 10)


@pytest.mark.slow
def test_all_methods(tmp_path):
    rows = run(tmp_path)
    assert len(rows) == sum(map(len, comparison.METHODS.values()))
    for name in ("Unrolled, checkpoints", "ForwardMode"):
        assert rows[name]["own_error"] < 1e-9
    for name in ("DARTS, exact", "DARTS, difference"):
        assert rows[name]["own_error"] < 1e-5


def test_keras_model_is_the_network():
    network = TanhNetwork(examples=40, width=3)
    x = np.random.default_rng(0).uniform(size=(4, 64))
    given = np.hstack([x, np.ones((4, 1))])
    model = network.to_keras(network.weights)
    hidden, output = (w.numpy() for w in network.weights)
    expected = np.hstack([np.tanh(given @ hidden), np.ones((4, 1))]) @ output
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4)


def test_peak_of_one_method():
    network = TanhNetwork(examples=40, width=2)
    assert comparison.memory_growth(network, "T1T2", steps=2) >= 0.0
