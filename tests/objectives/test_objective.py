"""The outer objective as an argument of `compile`."""

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from bilevel_tf.objectives.objective import Objective


@keras.saving.register_keras_serializable("tests")
class TrainingLoss(Objective):
    """Judges by the training loss, penalties and all."""

    def outer_loss(self, network, weights, hyperparameters, batch):
        return network.loss(weights, hyperparameters, batch, training=True)


def make_model(**arguments):
    keras.utils.set_random_seed(1)
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-6, 1.0, initial=0.1))
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    arguments = {"method": bt.methods.T1T2(), "loss": "mse", **arguments}
    model.compile("sgd", **arguments)
    return model


def data(seed=0, count=12):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype("float32")
    return x, x.sum(1, keepdims=True)


def test_default_is_the_validation_loss():
    assert type(make_model().objective) is bt.objectives.ValidationLoss


def test_objective_on_training_data_needs_no_validation_data():
    model = make_model(objective=TrainingLoss())
    before = model.hyperparameters.values()["l2"]
    model.fit(*data(), epochs=10, verbose=0)
    # Its own penalty is all that the training loss sees of the factor.
    assert model.hyperparameters.values()["l2"] < before


def test_validation_data_is_then_for_show():
    history = make_model(objective=TrainingLoss()).fit(
        *data(), validation_data=data(1), verbose=0
    )
    assert "val_loss" in history.history


class LoggedLoss(TrainingLoss):
    log_names = ("judged",)


def test_value_is_logged_under_its_name():
    still = keras.optimizers.SGD(0.0)
    method = bt.methods.T1T2(train_steps=1)
    model = make_model(objective=LoggedLoss(), method=method, hyper_optimizer=still)
    x, y = data()
    history = model.fit(x, y, batch_size=12, epochs=2, verbose=0).history
    # One batch is all of the data, and Q is asked at the weights after the step.
    expected = model.compute_loss(x, y, model(x), training=False)
    assert len(history["judged"]) == 2
    np.testing.assert_allclose(history["judged"][-1], expected, rtol=1e-6)


def test_value_is_nan_before_the_first_outer_step():
    method = bt.methods.T1T2(train_steps=1, warmup_epochs=1)
    model = make_model(objective=LoggedLoss(), method=method)
    history = model.fit(*data(), epochs=2, verbose=0).history
    assert np.isnan(history["judged"][0])
    assert np.isfinite(history["judged"][1])


def test_hyperparameter_must_not_be_called_as_the_value():
    hp = bt.HyperparameterSpace(judged=bt.Positive(0.1))
    inputs = keras.Input((3,))
    layer = keras.layers.Dense(1, kernel_regularizer=bt.L2(hp["judged"]))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    with pytest.raises(ValueError, match="'judged' has the name of a loss"):
        model.compile(
            "sgd",
            hyper_optimizer="sgd",
            method=bt.methods.T1T2(),
            objective=LoggedLoss(),
        )


def test_outer_batches_are_training_data():
    model = make_model(objective=TrainingLoss(), method=bt.methods.T1T2(train_steps=1))
    x, y = data()
    model.fit(x, y, batch_size=12, verbose=0)
    (outer_x, *_), _ = next(iter(model.outer.feed(0)))
    np.testing.assert_array_equal(np.sort(outer_x, 0), np.sort(x, 0))


def test_compile_config_has_the_objective(tmp_path):
    model = make_model(objective=TrainingLoss())
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.objective) is TrainingLoss


def test_unknown_objective_is_refused():
    with pytest.raises(TypeError, match=r"`objective` must be one objective.*'elbo'"):
        make_model(objective="elbo")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (bt.DeltaSTN(), r"DeltaSTN fits a best response.*Training"),
        (None, "`method` must be given with TrainingLoss.*DeltaSTN"),
    ],
)
def test_best_response_needs_validation_loss(method, message):
    with pytest.raises(ValueError, match=message):
        make_model(objective=TrainingLoss(), method=method)


def test_missing_validation_data():
    with pytest.raises(ValueError, match="Received: validation_data=None"):
        make_model().fit(*data(), verbose=0)


def test_evaluate_objective_is_the_validation_loss_of_all():
    model = make_model()
    x, y = data()
    model.fit(x, y, validation_data=(x, y), verbose=0)
    expected = model.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(model.evaluate_objective(x, y), expected, rtol=1e-5)
    weight = np.linspace(0.0, 1.0, len(x))
    expected = model.evaluate(x, y, sample_weight=weight, verbose=0)
    np.testing.assert_allclose(
        model.evaluate_objective(x, y, weight), expected, rtol=1e-5
    )


def test_evaluate_objective_leaves_the_model_alone():
    model = make_model(objective=TrainingLoss())
    x, y = data()
    before = model.get_weights()
    loss = model.evaluate(x, y, verbose=0)
    assert model.evaluate_objective(x, y) > loss
    for kept, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)
