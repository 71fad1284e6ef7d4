"""Tools that copy a model or call `fit` themselves."""

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from tests.training.models import classifier, compiled, data, network, space

FIT = {"epochs": 2, "batch_size": 8, "verbose": 0}


def make(X, y, units=4, validation_split=0.0):
    """A compiled model for scikit-learn's wrappers, which name the arguments."""
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input(X.shape[1:])
    penalty = bt.L2(hp["l2"])
    x = bt.HyperDense(units, "tanh", kernel_regularizer=penalty)(inputs)
    activation = "softmax" if y.shape[1] > 1 else None
    outputs = bt.HyperDense(y.shape[1], activation)(x)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(
        keras.optimizers.Adam(0.03),
        loss="categorical_crossentropy" if activation else "mse",
        hyper_optimizer=keras.optimizers.Adam(0.1),
        method=bt.DeltaSTN(train_steps=1),
        objective=bt.objectives.ValidationLoss(validation_split=validation_split),
    )
    return model


def tuned(model):
    return model.hyperparameters.values()["l2"] != pytest.approx(1e-2, rel=1e-5)


# The share that an objective takes


def test_the_objective_takes_its_share():
    models = []
    for share, given in ((0.25, {}), (0.0, {"validation_split": 0.25})):
        keras.utils.set_random_seed(0)
        x, y = data(40)
        model = make(x, keras.utils.to_categorical(y), validation_split=share)
        models.append(model)
        history = model.fit(
            x, keras.utils.to_categorical(y), shuffle=False, **FIT, **given
        )
        assert "val_loss" in history.history
    one, two = models
    assert tuned(one)
    assert one.hyperparameters.values() == two.hyperparameters.values()
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_fit_is_given_goes_first():
    x, y = data(40)
    y = keras.utils.to_categorical(y)
    model = make(x, y, validation_split=0.25)
    model.fit(x, y, 8, validation_data=(x, y), verbose=0)
    assert model.progress.inner_steps == 5
    model.fit(x, y, 8, validation_split=0.6, verbose=0)
    assert model.progress.inner_steps == 7


def test_the_share_is_saved():
    objective = bt.objectives.ValidationLoss(validation_split=0.3)
    copy = type(objective).from_config(objective.get_config())
    assert copy.validation_split == 0.3


# scikit-learn


@pytest.mark.parametrize("given", ["fit_kwargs", "fit", "objective"])
def test_a_wrapped_classifier(given):
    pytest.importorskip("sklearn")
    x, y = data(48)
    y = np.array(["no", "yes"])[(x[:, 0] > 0).astype(int)]
    split = {"validation_split": 0.25}
    wrapped = keras.wrappers.SKLearnClassifier(
        make,
        model_kwargs=split if given == "objective" else None,
        fit_kwargs={**FIT, "epochs": 2, **(split if given == "fit_kwargs" else {})},
    )
    wrapped.fit(x, y, **(split if given == "fit" else {}))
    assert tuned(wrapped.model_)
    assert "l2" in wrapped.history_.history


def test_a_wrapped_regressor():
    pytest.importorskip("sklearn")
    x, _ = data(48)
    wrapped = keras.wrappers.SKLearnRegressor(
        make, fit_kwargs={**FIT, "epochs": 12, "validation_split": 0.25}
    )
    wrapped.fit(x, x @ np.arange(6.0))
    assert tuned(wrapped.model_)
    assert wrapped.score(x, x @ np.arange(6.0)) > 0.0


def test_a_wrapped_model_is_cloned():
    pytest.importorskip("sklearn")
    x, y = data(32)
    model = make(x, keras.utils.to_categorical(y), validation_split=0.25)
    wrapped = keras.wrappers.SKLearnClassifier(model, fit_kwargs=FIT).fit(x, y)
    assert tuned(wrapped.model_)
    assert not tuned(model)


def test_grid_search():
    """It clones the wrapper, and Keras's wrapper loses its `fit_kwargs` then."""
    selection = pytest.importorskip("sklearn.model_selection")
    x, y = data(40)
    grid = {
        "model_kwargs": [{"units": n, "validation_split": 0.25} for n in (2, 3)],
    }
    wrapped = keras.wrappers.SKLearnClassifier(make)
    search = selection.GridSearchCV(wrapped, grid, cv=2, error_score="raise")
    search.fit(x, y, **FIT)
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
    best = search.best_estimator_.model_
    assert best.layers[1].units == search.best_params_["model_kwargs"]["units"]
    assert tuned(best)


def test_a_search_that_gives_no_validation_data():
    selection = pytest.importorskip("sklearn.model_selection")
    wrapped = keras.wrappers.SKLearnClassifier(
        make, fit_kwargs={"validation_split": 0.25}
    )
    with pytest.raises(ValueError, match=r"another tool.*ValidationLoss\(validation_s"):
        selection.cross_val_score(wrapped, *data(20), cv=2, error_score="raise")


# clone_model


@pytest.mark.parametrize("by_name", [True, False])
def test_clone_model(by_name):
    hp = space()
    inputs, outputs = network(hp)
    if by_name:
        model = bt.BilevelModel(inputs=inputs, outputs=outputs, hyperparameters=hp)
    else:
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model = compiled(model)
    x, y = data(16)
    given = {"validation_data": (x, y), **FIT}
    model.fit(x, y, **given)
    clone = keras.models.clone_model(model)
    assert isinstance(clone, bt.BilevelModel)
    assert clone.hyperparameters is not model.hyperparameters
    assert clone.hyperparameters.values() == space().values()
    assert type(clone.method) is bt.DeltaSTN
    clone.set_weights(model.get_weights())
    assert clone.hyperparameters.values() == model.hyperparameters.values()
    np.testing.assert_array_equal(
        clone.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    before = model.hyperparameters.values()
    clone.fit(x, y, **given)
    assert clone.hyperparameters.values() != before
    assert model.hyperparameters.values() == before
    keras.models.clone_model(clone)


def test_clone_model_with_a_function_of_layers():
    def clone_layer(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.Dense):
            config["activation"] = "relu"
        return type(layer).from_config(config)

    model = classifier()
    clone = keras.models.clone_model(model, clone_function=clone_layer)
    assert clone.layers[2].activation is keras.activations.relu
    assert clone.layers[1].rate.name == "rate"
    assert clone.hyperparameters.names == model.hyperparameters.names
