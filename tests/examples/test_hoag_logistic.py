"""HOAG against grid and random search, in small."""

import hoag_logistic
import lbfgs
import numpy as np
import tensorflow as tf


def test_in_small(tmp_path, capsys, monkeypatch):
    methods = {"HOAG, 0.1 / k²": hoag_logistic.METHODS["HOAG, 0.1 / k²"]}
    monkeypatch.setattr(hoag_logistic, "METHODS", methods)
    folders = [f"--output={tmp_path}", f"--saved-model={tmp_path / 'saved'}"]
    arguments = ["--data=breast_cancer", "--solves=4", *folders]
    one, many = hoag_logistic.main(arguments)
    assert len(one) == 3
    assert len(many) == 2
    for rows in (one, many):
        assert min(row["excess"].min() for row in rows) == 0.0
        for row in rows:
            assert len(row["losses"]) == 4
            assert np.all(np.diff(row["seconds"]) > 0)
        hoag, searched = rows[0], rows[-1]
        assert hoag["losses"][-1] < hoag["losses"][0]
        assert np.all(np.diff(searched["losses"]) <= 1e-6)
    assert "random search" in capsys.readouterr().out
    assert (tmp_path / "hoag_logistic.png").stat().st_size > 1000
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    assert saved.serve(tf.ones((2, 30))).shape == (2, 1)


def test_keras_model_is_the_classifier():
    problem = hoag_logistic.Logistic("breast_cancer")
    w = problem.train(problem.weights, 0.0)
    raw = hoag_logistic.load_breast_cancer().data[:5]
    scores = (raw - problem.mean) / problem.deviation @ w.numpy()
    found = problem.to_keras(w).predict(raw, verbose=0)[:, 0]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-scores)), rtol=1e-3, atol=1e-6)


def test_tolerance_falls_as_a_power():
    method = hoag_logistic.PolynomialHOAG(2, tolerance=0.1)
    found = [float(method.tolerance_at(k)) for k in range(3)]
    np.testing.assert_allclose(found, [0.1, 0.1 / 4, 0.1 / 9], rtol=1e-6)


def test_minimiser_finds_the_minimum():
    def loss(weights, scale):
        a, b = weights
        return tf.reduce_sum((a - scale) ** 2) + tf.reduce_sum((b + 1) ** 2)

    start = [tf.zeros((2, 3), tf.float64), tf.zeros(2, tf.float64)]
    (a, b), slope = lbfgs.minimiser(loss)(start, tf.constant(3.0, tf.float64))
    np.testing.assert_allclose(a, np.full((2, 3), 3.0))
    np.testing.assert_allclose(b, [-1, -1])
    assert slope < 1e-8
