"""A loss that judges hyperparameters and does not train."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.methods.problems import central_differences


def data(seed=0, count=12):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    return x, x.sum(1, keepdims=True) + rng.normal(size=(count, 1))


def make(method=None, dense=bt.HyperDense, **arguments):
    hp = bt.HyperparameterSpace(factor=bt.Positive(0.7))
    inputs = keras.Input((3,))
    outputs = dense(1, use_bias=False, kernel_regularizer="l2")(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    defaults = {
        "optimizer": keras.optimizers.SGD(0.1),
        "loss": bt.losses.WeightedLoss("mse", hp["factor"]),
        "outer_loss": "mae",
        "hyper_optimizer": keras.optimizers.SGD(1.0),
        "method": method or bt.DeltaSTN(),
    }
    model.compile(**{**defaults, **arguments})
    return model, hp


class Trained:
    """λ f ‖Xw − y‖² / n + 0.01 ‖w‖², and the hypergradient of the absolute errors."""

    def __init__(self):
        self.train, self.valid = data(), data(1, 9)

    def weights(self, raw):
        (x, y), factor = self.train, np.log1p(np.exp(raw))
        hessian = factor * x.T @ x / len(x) + 0.01 * np.eye(3)
        return np.linalg.solve(hessian, factor * x.T @ y / len(x))

    def outer(self, raw):
        x, y = self.valid
        return np.mean(np.abs(x @ self.weights(raw[0]) - y))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "method",
    [
        bt.methods.ExactImplicit(),
        bt.ConjugateGradient(9, 1e-12),
        bt.methods.HOAG(1e-12),
        bt.Neumann(4000),
        bt.methods.GaussNewton(9, 1e-12, damping=0.0),
        bt.Unrolled(1000),
        bt.methods.ForwardMode(1000),
    ],
    ids=lambda method: type(method).__name__,
)
def test_the_hypergradient_is_that_of_the_outer_loss(method):
    model, hp = make(method, keras.layers.Dense)
    known, raw = Trained(), np.array(hp.unconstrained)
    model.layers[1].kernel.assign(known.weights(raw[0]))
    batches = getattr(method, "inner_batches", 1)
    training = tuple(tf.constant(np.stack([a] * batches)) for a in known.train)
    model.outer_train_step(((*map(tf.constant, known.valid), None), (*training, None)))
    found = raw - np.array(hp.unconstrained)
    expected = central_differences(known.outer, raw)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert abs(expected[0]) > 1e-5


@pytest.mark.usefixtures("float64")
def test_a_response_descends_the_outer_loss():
    model, hp = make(bt.DeltaSTN(entropy_weight=0.0))
    rng = np.random.default_rng(0)
    for variable in model.network.response_variables:
        variable.assign(rng.normal(size=variable.shape))
    hp.raw_perturbation_scale.assign(np.full(1, -40.0))  # no perturbation
    (x, y), raw = data(), np.array(hp.unconstrained)

    def outer(raw):
        outputs = model.call_at(x, {"factor": np.log1p(np.exp(raw[0]))})
        return np.mean(np.abs(outputs - y))

    expected = central_differences(outer, raw)
    model.outer_train_step(((tf.constant(x), tf.constant(y), None),))
    found = raw - np.array(hp.unconstrained)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_factor_of_the_training_loss_no_longer_judges_itself():
    """Judged by its own loss the factor falls; by another it does what the data say."""
    x, y = data(0, 64)
    factors = {}
    for outer in (None, "mse"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model, hp = make(bt.methods.T1T2(), keras.layers.Dense, outer_loss=outer)
        model.fit(x, y, validation_data=(x, y), epochs=10, verbose=0)
        factors[outer] = hp.values()["factor"]
    assert factors[None] < 0.5
    assert factors["mse"] > 0.7


def test_logs_and_evaluation_show_both_losses():
    model, hp = make()
    x, y = data()
    weight = np.linspace(0.5, 2, 12)
    history = model.fit(x, y, validation_data=(x, y, weight), verbose=0).history
    assert set(history) == {"loss", "factor", "val_loss", "val_outer_loss"}
    shown = model.evaluate(x, y, 5, sample_weight=weight, verbose=0, return_dict=True)
    error = model.predict(x, verbose=0) - y
    expected = np.mean(weight[:, None] * np.abs(error))
    np.testing.assert_allclose(shown["outer_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(history["val_outer_loss"][0], expected, rtol=1e-5)
    found = model.evaluate_objective(x, y, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    expected = hp.values()["factor"] * np.mean(weight[:, None] * error**2)
    np.testing.assert_allclose(shown["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("kind", ["list", "dict", "names"])
@pytest.mark.parametrize("method", [bt.DeltaSTN(), bt.Neumann(2)])
def test_several_outputs(kind, method, jit_compile):
    hp = bt.HyperparameterSpace(l2=bt.Positive(0.1))
    inputs = keras.Input((3,))
    one = bt.HyperDense(1, name="one", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    two = bt.HyperDense(1, name="two", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    outputs = {"one": one, "two": two} if kind == "dict" else [one, two]
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    loss, weights = ["mse", "mae"], [1.0, 3.0]
    if kind != "list":
        loss, weights = (
            dict(zip(("one", "two"), given, strict=True)) for given in (loss, weights)
        )
    arguments = {"outer_loss": loss, "outer_loss_weights": weights}
    model.compile("sgd", "mse", method=method, jit_compile=jit_compile, **arguments)
    x, y = data()
    targets = {"one": y, "two": y} if kind == "dict" else [y, y]
    history = model.fit(x, targets, validation_data=(x, targets), verbose=0).history
    first, second = keras.tree.flatten(model.predict(x, verbose=0))
    expected = np.mean((first - y) ** 2) + 3.0 * np.mean(np.abs(second - y))
    np.testing.assert_allclose(history["val_outer_loss"][0], expected, rtol=1e-5)


def test_it_is_saved_with_the_model(tmp_path):
    model, hp = make(
        outer_loss=[bt.losses.WeightedLoss("mse", 2.0)], outer_loss_weights=[0.5]
    )
    x, y = data()
    model.fit(x, y, validation_data=(x, y), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = model.evaluate_objective(x, y)
    np.testing.assert_allclose(loaded.evaluate_objective(x, y), expected, rtol=1e-6)
    again = [m.fit(x, y, validation_data=(x, y), verbose=0) for m in (model, loaded)]
    a, b = (history.history["val_outer_loss"] for history in again)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    assert "outer_loss" in [metric.name for metric in model.metrics]
    model.compile("sgd", bt.losses.GaussianLikelihood(hp["factor"]))
    assert "outer_loss" not in [metric.name for metric in model.metrics]


def test_an_objective_of_ones_own_may_judge_by_it():
    class Scaled(bt.objectives.ValidationLoss):
        takes_outer_loss = True

        def outer_loss(self, network, weights, hyperparameters, batch):
            return 2.0 * super().outer_loss(network, weights, hyperparameters, batch)

    model, _ = make(bt.Neumann(2), objective=Scaled())
    x, y = data()
    error = np.mean(np.abs(model.predict(x, verbose=0) - y))
    np.testing.assert_allclose(model.evaluate_objective(x, y), 2 * error, rtol=1e-5)


def test_an_outer_loss_in_half_of_its_own_judge_warns():
    with pytest.warns(UserWarning, match="'factor' stands in the loss that judges"):
        make(outer_loss=None)
    hp = bt.HyperparameterSpace(factor=bt.Positive(0.7))
    inputs = keras.Input((3,))
    model = bt.BilevelModel(inputs, bt.HyperDense(1)(inputs), hyperparameters=hp)
    with pytest.warns(UserWarning, match="'factor' stands in the loss that judges"):
        model.compile(
            loss="mse", outer_loss=bt.losses.WeightedLoss("mse", hp["factor"])
        )
    model.compile(loss=bt.losses.GaussianLikelihood(hp["factor"]))


def test_a_function_that_reads_a_hyperparameter_warns_in_fit():
    hp = bt.HyperparameterSpace(factor=bt.Positive(0.7))
    inputs = keras.Input((3,))
    model = bt.BilevelModel(inputs, bt.HyperDense(1)(inputs), hyperparameters=hp)

    def loss(y_true, y_pred):
        errors = keras.ops.mean((y_true - y_pred) ** 2, -1)
        return bt.hyperparameters.value_for(hp["factor"], errors) * errors

    x, y = data()
    model.compile(loss=loss)
    with pytest.warns(UserWarning, match="'factor' stands in the loss that judges"):
        model.fit(x, y, validation_data=(x, y), verbose=0)
    model.compile(loss=loss, outer_loss="mse")
    model.fit(x, y, validation_data=(x, y), verbose=0)


@pytest.mark.parametrize(
    "given",
    [
        "mse",
        keras.losses.mean_squared_error,
        keras.losses.MeanSquaredError(reduction="sum"),
        lambda y_true, y_pred: keras.ops.mean((y_true - y_pred) ** 2, -1),
    ],
    ids=["name", "function", "object", "own"],
)
def test_a_weighted_loss_multiplies_every_example(given):
    hp = bt.HyperparameterSpace(factor=bt.Positive(3.0))
    loss = bt.losses.WeightedLoss(given, hp["factor"])
    y_true, y_pred = np.zeros((4, 2)), np.arange(8.0).reshape(4, 2)
    errors, weight = np.mean(y_pred**2, -1), np.arange(4.0)
    found = loss(y_true, y_pred, sample_weight=weight)
    np.testing.assert_allclose(found, 3.0 * np.mean(weight * errors), rtol=1e-6)
    values = {"factor": tf.constant([1.0, 2.0, 3.0, 4.0])}
    with bt.hyperparameters.pass_in_force.begin_pass(values=values):
        found = loss(y_true, y_pred)
    expected = np.mean(values["factor"] * errors)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_weighted_loss_is_made_again_from_its_config():
    hp = bt.HyperparameterSpace(factor=bt.Positive(3.0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = bt.losses.WeightedLoss(loss, hp["factor"], name="task")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.from_logits
    assert again.name == "task"
    assert (again.weight.name, again.loss.name) == ("factor", loss.loss.name)
