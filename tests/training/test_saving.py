"""What is saved is the whole of training, not the weights alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.hyperparameters import references
from tests.training.models import (
    METHODS,
    assert_same_state,
    classifier,
    data,
    everything,
    network,
    space,
)

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")


def fit(model, epochs, **arguments):
    x, y = data(44)
    # 6 batches an epoch, which 4 does not divide; 21 is no multiple of 8 either.
    model.fit(
        x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0,
        validation_data=data(21, seed=1), **arguments,
    )  # fmt: skip
    return model


def reloaded(model, tmp_path, **arguments):
    path = tmp_path / "model.keras"
    model.save(path)
    keras.utils.set_random_seed(99)
    return keras.models.load_model(path, **arguments)


@pytest.mark.parametrize("method", ["DeltaSTN", "STN", "CenteredSTN"])
def test_interrupted_training_equals_straight(method, tmp_path):
    arguments = {"train_steps": 4, "valid_steps": 2}
    straight = fit(classifier(METHODS[method](**arguments)), 4)
    keras.utils.set_random_seed(0)
    first = fit(classifier(METHODS[method](**arguments)), 2)
    before = everything(first)
    second = fit(reloaded(first, tmp_path), 2)
    assert_same_state(straight, second)
    assert vars(second.progress) == vars(straight.progress)
    assert straight.progress.inner_steps == 24
    assert straight.progress.outer_steps == 12
    moved = [
        name
        for (name, a), b in zip(
            before.items(), everything(second).values(), strict=True
        )
        if not np.array_equal(a, b)
    ]
    assert any("unconstrained" in name for name in moved)
    assert any("raw_perturbation_scale" in name for name in moved)
    assert any(name.endswith("factor") for name in moved)
    assert any("seed_generator_state" in name for name in moved)


def test_seeds_matter_to_the_comparison(tmp_path):
    first = fit(classifier(), 1)
    second = reloaded(first, tmp_path)
    seeds = [v for v in second.variables if v.name == "seed_generator_state"]
    assert len(seeds) == 3
    seeds[0].assign(seeds[0] + 1)
    fit(first, 1)
    fit(second, 1)
    with pytest.raises(AssertionError):
        assert_same_state(first, second)


@pytest.mark.parametrize("warm", [False, True])
def test_warmup_is_remembered(warm, tmp_path):
    model = fit(classifier(bt.DeltaSTN(train_steps=2, warmup_epochs=2)), 1 + warm)
    before = model.hyperparameters.values()
    model = fit(reloaded(model, tmp_path), 1)
    assert (model.hyperparameters.values() != before) == warm


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_loaded_model_predicts_the_same(method, compile, tmp_path):
    model = fit(classifier(METHODS[method](train_steps=2)), 2)
    loaded = reloaded(model, tmp_path, compile=compile)
    x = data(5, seed=2)[0]
    np.testing.assert_array_equal(model.predict(x), loaded.predict(x))
    assert loaded.hyperparameters.values() == model.hyperparameters.values()
    elsewhere = {"l2": 0.5}
    np.testing.assert_array_equal(
        model.call_at(x, elsewhere), loaded.call_at(x, elsewhere)
    )
    at = model.call_at(x, elsewhere) - model.predict(x)
    assert np.max(np.abs(at)) > 1e-6


@pytest.mark.parametrize("compile", [True, False])
def test_a_layer_frozen_after_it_responded_keeps_its_response(compile, tmp_path):
    model = fit(classifier(bt.STN(train_steps=2)), 2)
    model.network.responding_layers[0].trainable = False
    loaded = reloaded(model, tmp_path, compile=compile)
    x = data(5, seed=2)[0]
    np.testing.assert_array_equal(model.predict(x), loaded.predict(x))
    hyper = [la for la in loaded.network.layers if isinstance(la, bt.layers.HyperLayer)]
    assert sum(bool(layer.responses) for layer in hyper) == 2
    assert len(loaded.network.responding_layers) == 1


def test_responses_of_a_former_method_are_left_behind(tmp_path):
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((6,))
    x = bt.HyperDense(4, "tanh", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    model = bt.BilevelModel(inputs, bt.HyperDense(3)(x), hyperparameters=hp)
    model.compile("sgd", "sparse_categorical_crossentropy", method=bt.STN())
    model.layers[1].trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy", method=bt.methods.T1T2())
    x = data(5, seed=2)[0]
    with pytest.raises(RuntimeError, match=r"no best response.*method=T1T2"):
        model.call_at(x, {})
    loaded = reloaded(model, tmp_path)
    np.testing.assert_array_equal(model.predict(x), loaded.predict(x))
    model.export(tmp_path / "served", verbose=False)
    assert not hasattr(tf.saved_model.load(str(tmp_path / "served")), "serve_at")


def test_a_response_optimizer_that_follows_does_so_after_loading(tmp_path):
    model = classifier(response_optimizer=None)
    loaded = reloaded(model, tmp_path)
    assert loaded.response_follows
    assert not reloaded(classifier(), tmp_path).response_follows


def test_model_that_was_never_compiled_round_trips(tmp_path):
    hp = space()
    model = bt.BilevelModel(*network(hp), hyperparameters=hp, name="bare")
    hp.assign({"rate": 0.6})
    loaded = reloaded(model, tmp_path)
    x = data(5)[0]
    np.testing.assert_array_equal(model.predict(x), loaded.predict(x))
    assert loaded.name == "bare"
    assert loaded.method is None
    assert loaded.hyperparameters.values()["rate"] == pytest.approx(0.6)


def test_compiled_arguments_survive(tmp_path):
    method = bt.DeltaSTN(
        train_steps=3, valid_steps=2, entropy_weight=0.5, warmup_epochs=1,
        response_share=0.5, response_initializer="random",
    )  # fmt: skip
    model = classifier(method, metrics=["accuracy"])
    loaded = reloaded(model, tmp_path)
    assert type(loaded.method) is bt.DeltaSTN
    assert loaded.method.get_config() == method.get_config()
    assert isinstance(loaded.hyper_optimizer, keras.optimizers.Adam)
    for name in ("optimizer", "response_optimizer", "hyper_optimizer"):
        ours, theirs = getattr(loaded, name), getattr(model, name)
        assert ours.get_config() == theirs.get_config()
    assert loaded.get_compile_config()["metrics"] == ["accuracy"]


def test_weights_alone(tmp_path):
    model = fit(classifier(), 2)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    other = classifier()
    other.load_weights(path)
    assert_same_state(model, other)
    x = data(5, seed=2)[0]
    np.testing.assert_array_equal(model.predict(x), other.predict(x))
    assert_same_state(fit(model, 1), fit(other, 1))


@pytest.mark.parametrize("method", ["DeltaSTN", "STN"])
def test_config_round_trip(method):
    model = fit(classifier(METHODS[method](train_steps=2)), 1)
    copy = bt.BilevelModel.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    x = data(5, seed=2)[0]
    np.testing.assert_array_equal(model.predict(x), copy.predict(x))
    assert copy.hyperparameters is not model.hyperparameters
    assert [la.name for la in copy.layers] == [la.name for la in model.layers]
    found = references(copy.network.responding_layers[0])
    assert found[0].space is copy.hyperparameters


def test_layers_of_a_loaded_model_share_one_space(tmp_path):
    loaded = reloaded(classifier(), tmp_path)
    dropout, dense = loaded.layers[1], loaded.layers[2]
    assert dropout.rate.space is loaded.hyperparameters
    assert dense.kernel_regularizer.l2.space is loaded.hyperparameters
    loaded.hyperparameters.assign({"l2": 0.25})
    assert float(dense.kernel_regularizer.l2.value()) == pytest.approx(0.25)


def test_two_models_may_share_a_space():
    hp = space()
    one, two = classifier(hp=hp), classifier(hp=hp)
    fit(one, 1)
    assert one.hyperparameters is two.hyperparameters
    assert two.hyperparameters.values() == one.hyperparameters.values()
    values = hp.values()
    fit(two, 1)
    assert one.hyperparameters.values() != values


def test_vector_hyperparameters_round_trip(tmp_path):
    hp = space(weights=bt.Positive(initial=[1.0, 2.0, 3.0]))
    model = fit(classifier(hp=hp), 1)
    loaded = reloaded(model, tmp_path)
    ours = loaded.hyperparameters.values()["weights"]
    np.testing.assert_array_equal(ours, hp.values()["weights"])
    np.testing.assert_array_equal(
        loaded.hyperparameters.perturbation_scales()["weights"],
        hp.perturbation_scales()["weights"],
    )
