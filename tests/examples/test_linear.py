"""The linear examples end near the optimum that they compare themselves with."""

import linear_network as network
import linear_regression as linear
import numpy as np
import pytest
import ridge
import tensorflow as tf

SMALL = ["--data", "diabetes", "--seeds", "1"]


def folders(tmp_path):
    return [
        "--output",
        str(tmp_path / "out"),
        "--saved-models",
        str(tmp_path / "saved"),
    ]


def of(rows, method):
    return [row for row in rows if row["method"] == method]


def test_exact_solutions():
    """The dropout solution against least squares on many sampled masks."""
    problem = ridge.split(*ridge.load("diabetes"), 0)
    random = np.random.default_rng(0)
    rate = 0.3
    matrix = linear.PENALTIES["dropout"](rate, problem.second_moment)
    weights = problem.weights(matrix)
    x = np.tile(problem.x, (4000, 1)).astype("float32")
    x *= (random.random(x.shape, dtype="float32") >= rate) / np.float32(1 - rate)
    y = np.tile(problem.y, (4000, 1))
    sampled = np.linalg.solve(x.T @ x, x.T @ y)[:, 0]
    np.testing.assert_allclose(weights, sampled, atol=3e-3)
    assert ridge.minimum(lambda at: (at - 0.123) ** 2, -12, 12) == pytest.approx(0.123)


def test_halves_are_standardised_by_the_first():
    x = np.random.default_rng(0).normal(3, 2, size=(40, 2))
    x[:, 1] = 5
    problem = ridge.split(x, x[:, 0], seed=1)
    np.testing.assert_allclose(problem.x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(problem.x.std(0), [1, 0], atol=1e-6)
    assert problem.x_valid.shape == (20, 2)
    together = np.sort(np.concatenate([problem.x, problem.x_valid])[:, 0])
    gaps = np.diff(together) / np.diff(np.sort(x[:, 0]))
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-2)


def test_data_folder_is_used(tmp_path):
    x, y = np.ones((4, 2)), np.arange(4.0)
    np.savez(tmp_path / "yacht.npz", x=x, y=y)
    assert ridge.available(tmp_path) == ["diabetes", "yacht"]
    np.testing.assert_array_equal(ridge.load("yacht", tmp_path)[1], y)
    with pytest.raises(FileNotFoundError, match="--data-dir"):
        ridge.load("yacht")


@pytest.mark.parametrize("name", ["l2", "dropout"])
def test_linear_regression_in_small(tmp_path, capsys, name):
    main = linear.main
    arguments = ["--methods", "DeltaSTN", "--epochs", "20", "--tune", name]
    (row,) = main([*SMALL, *arguments, *folders(tmp_path)])
    assert row["excess"] < 0.2
    assert row["excess_path"][0] > 2 * row["excess"]
    assert np.log(row["found"] / row["exact"]) == pytest.approx(0, abs=0.5)
    assert f"{row['found']:.3g}" in capsys.readouterr().out
    assert (tmp_path / "out" / f"linear_regression_{name}.png").stat().st_size > 1000
    saved = tf.saved_model.load(str(tmp_path / "saved" / f"linear_regression_{name}"))
    assert saved.serve(tf.zeros((2, 10))).shape == (2, 1)


def test_linear_network_in_small(tmp_path):
    main = network.main
    arguments = ["--methods", "DeltaSTN", "--epochs", "8", "--units", "6"]
    (row,) = main([*SMALL, *arguments, *folders(tmp_path)])
    assert row["excess"] < 1.0
    assert row["model_excess"] < 2.0
    assert (tmp_path / "out" / "linear_network.png").stat().st_size > 1000
    saved = tf.saved_model.load(str(tmp_path / "saved" / "linear_network"))
    prediction, jacobian = saved.serve(tf.zeros((2, 10)))
    assert prediction.shape == (2, 1)
    np.testing.assert_array_equal(jacobian, 0)


def test_second_output_is_the_jacobian():
    """At each example's own response weights, scaled by its own factor."""
    from bilevel_tf.hyperparameters.pass_in_force import begin_pass

    model = network.build(features=3, units=4)
    args = type("Args", (), {"epochs": 1, "steps_per_epoch": 10, "learning_rate": 0.1})
    linear.compile_model(model, "CenteredSTN", args, ["mse", network.squared_norm])
    random = np.random.default_rng(0)
    for variable in model.network.response_variables:
        variable.assign(random.normal(size=variable.shape))
    x = tf.constant(random.normal(size=(2, 3)), "float32")
    delta = tf.constant([[0.1], [-0.2]])
    space = model.hyperparameters
    values = space.constrain(delta + space.unconstrained)
    with (
        tf.GradientTape() as tape,
        begin_pass(delta=delta, values=values),
    ):
        tape.watch(x)
        prediction, scaled = model(x, training=True)
        total = tf.reduce_sum(prediction)
    expected = tape.gradient(total, x) * tf.sqrt(values["jacobian"])[:, None]
    assert not np.allclose(scaled[0], scaled[1], rtol=0.1)
    np.testing.assert_allclose(scaled, expected, rtol=1e-4)


@pytest.mark.slow
def test_linear_regression_goals(tmp_path):
    rows = linear.main(["--seeds", "3", *folders(tmp_path)])
    for name in ("l2", "dropout"):
        of_name = [row for row in rows if row["name"] == name]
        delta = [row["excess"] for row in of(of_name, "DeltaSTN")]
        stn = [row["excess"] for row in of(of_name, "STN")]
        assert max(delta) < 0.5
        assert np.median(delta) < np.median(stn)


@pytest.mark.slow
def test_linear_network_goals(tmp_path):
    rows = network.main(["--seeds", "2", *folders(tmp_path)])
    delta = of(rows, "DeltaSTN")
    assert max(row["excess"] for row in delta) < 2.0
    assert max(row["model_excess"] for row in delta) < 2.0
    rest = [row["excess"] for row in rows if row["method"] != "DeltaSTN"]
    assert np.median([row["excess"] for row in delta]) < np.median(rest)
