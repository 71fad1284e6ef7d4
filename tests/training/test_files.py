"""Files that are damaged or of something else: errors that say so, and nothing lost."""

import json
import os
import zipfile

import keras
import numpy as np
import pytest

import bilevel_tf as bt
from tests.training.models import classifier, compiled, data, everything, network, space


def trained(method=None):
    """A model in the middle of training; all state has values of its own."""
    model = classifier(method)
    generator = np.random.default_rng(0)
    optimizers = model.optimizer, model.response_optimizer, model.hyper_optimizer
    for part in (model, *optimizers):
        for variable in part.variables:
            values = generator.integers(1, 9, size=variable.shape)
            variable.assign(values.astype(variable.dtype))
    model.progress.inner_steps, model.progress.epochs = 7, 2
    return model


def state(model):
    return {**everything(model), **vars(model.progress)}


def assert_state(model, before):
    after = state(model)
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def rewritten(model, folder, change):
    """A `.keras` file of the model in which a function has changed every part."""
    model.save(folder / "whole.keras")
    with (
        zipfile.ZipFile(folder / "whole.keras") as old,
        zipfile.ZipFile(folder / "changed.keras", "w") as new,
    ):
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return folder / "changed.keras"


def with_config(model, folder, change):
    """A `.keras` file of the model in which a function has changed the config."""

    def change_part(name, content):
        if name != "config.json":
            return content
        stored = json.loads(content)
        change(stored["config"])
        return json.dumps(stored).encode()

    return rewritten(model, folder, change_part)


# Formats


@pytest.mark.parametrize("save", ["method", "function"])
def test_hdf5_is_refused(save, tmp_path):
    model = trained()
    before = state(model)
    path = tmp_path / "model.h5"
    with pytest.raises(ValueError, match=r"old HDF5 format.*model\.save"):
        model.save(path) if save == "method" else keras.models.save_model(model, path)
    assert_state(model, before)
    model.save(tmp_path / "model.keras")
    assert_state(keras.models.load_model(tmp_path / "model.keras"), before)


def test_an_hdf5_file_of_a_model_is_refused_too(tmp_path):
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    plain.save(tmp_path / "plain.h5")
    assert keras.models.load_model(tmp_path / "plain.h5").name == plain.name
    inputs = keras.Input((6,))
    classifier_in_it = keras.Model(inputs, trained()(inputs))
    with pytest.raises(ValueError, match="old HDF5 format"):
        classifier_in_it.save(tmp_path / "nested.h5")


@pytest.mark.parametrize("name", ["folder", "model.txt", "model.pb"])
def test_other_names_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r"must end in '.keras'.*export"):
        classifier().save(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_a_folder_can_be_written(tmp_path):
    model = trained()
    model.save(tmp_path / "folder", zipped=False)
    assert_state(keras.models.load_model(tmp_path / "folder"), state(model))


def test_a_failing_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    model, path = trained(), tmp_path / "model.keras"
    model.save(path)
    before, content = state(model), path.read_bytes()
    model.layers[2].kernel.assign(model.layers[2].kernel + 1.0)

    def fail(store):
        raise OSError("No space left on device")

    monkeypatch.setattr(model.layers[2], "save_own_variables", fail)
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["model.keras"]
    assert_state(bt.load_model(path), before)


def test_a_saved_file_has_the_usual_permissions(tmp_path):
    classifier().save(tmp_path / "model.keras")
    (tmp_path / "other").write_text("")
    modes = {os.stat(tmp_path / name).st_mode for name in os.listdir(tmp_path)}
    assert len(modes) == 1


# Weights that do not fit change nothing


def wider():
    hp, inputs = space(), keras.Input((6,))
    x = bt.HyperDropout(hp["rate"], seed=7)(inputs)
    x = bt.HyperDense(9, activation="tanh", kernel_regularizer=bt.L2(hp["l2"]))(x)
    outputs = bt.HyperDense(3)(keras.layers.Dropout(0.2, seed=8)(x))
    return compiled(bt.BilevelModel(inputs, outputs, hyperparameters=hp))


def deeper():
    hp, inputs = space(), keras.Input((6,))
    x = bt.HyperDropout(hp["rate"], seed=7)(inputs)
    x = bt.HyperDense(8, activation="tanh", kernel_regularizer=bt.L2(hp["l2"]))(x)
    x = bt.HyperDense(8)(keras.layers.Dropout(0.2, seed=8)(x))
    outputs = bt.HyperDense(3)(x)
    return compiled(bt.BilevelModel(inputs, outputs, hyperparameters=hp))


def with_more_hyperparameters():
    hp = space(extra=bt.Positive(1.0))
    return bt.BilevelModel(*network(hp), hyperparameters=hp)


OTHERS = {
    "wider": (wider, r"another network.*shape \(6, 9\).*has \(6, 8\)"),
    "deeper": (deeper, "another network.*10 weights.*model has 8|8.*has 6|8.*7"),
    "more hyperparameters": (
        with_more_hyperparameters,
        r"another HyperparameterSpace.*'extra' of shape \(\)",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_weights_of_another_model(kind, tmp_path):
    make, words = OTHERS[kind]
    path = tmp_path / "other.weights.h5"
    make().save_weights(path)
    model = trained()
    before = state(model)
    with pytest.raises(ValueError, match=f"(?s)other.weights.h5.*as it was.*({words})"):
        model.load_weights(path)
    assert_state(model, before)


def test_weights_of_a_plain_model(tmp_path):
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8)])
    plain.save_weights(tmp_path / "plain.weights.h5")
    model = trained()
    before = state(model)
    with pytest.raises(ValueError, match=r"plain.weights.h5.*stays as it was"):
        model.load_weights(tmp_path / "plain.weights.h5")
    assert_state(model, before)


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
@pytest.mark.parametrize("content", ["empty", "half", "text"])
def test_damaged_weights(suffix, content, tmp_path):
    model = trained()
    before = state(model)
    path = tmp_path / f"model.{suffix}"
    model.save(path) if suffix == "keras" else model.save_weights(path)
    whole = path.read_bytes()
    damaged = {"empty": b"", "half": whole[: len(whole) // 2], "text": b"hello"}
    path.write_bytes(damaged[content])
    with pytest.raises(OSError, match=r"model\..*stays as it was. It is damaged"):
        model.load_weights(path)
    assert_state(model, before)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*none.weights.h5"):
        classifier().load_weights(tmp_path / "none.weights.h5")


def test_a_response_that_predictions_need(tmp_path):
    path = tmp_path / "stn.weights.h5"
    trained(bt.STN()).save_weights(path)
    hp = space()
    model = bt.BilevelModel(*network(hp), hyperparameters=hp)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"trained by STN.*through its response"):
        model.load_weights(path)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_state_of_another_method_is_left_with_a_warning(tmp_path):
    path, model = tmp_path / "delta.weights.h5", trained()
    model.save_weights(path)
    other = classifier(bt.methods.CenteredSTN())
    with pytest.warns(UserWarning, match="DeltaSTN and .*compiled with CenteredSTN"):
        other.load_weights(path)
    x = data(5, seed=2)[0]
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


def test_weights_for_a_model_that_is_not_compiled(tmp_path):
    model = trained()
    model.save_weights(tmp_path / "model.weights.h5")
    hp = space()
    other = bt.BilevelModel(*network(hp), hyperparameters=hp)
    other.load_weights(tmp_path / "model.weights.h5")
    x = data(5, seed=2)[0]
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


BAD_WEIGHTS = {
    "one missing": (lambda w: w[:-1], ValueError, "one array for each of the 14"),
    "one too many": (lambda w: [*w, w[0]], ValueError, "Received: 15 arrays"),
    "shape": (lambda w: [*w[:-1], np.zeros(7)], ValueError, r"`weights\[13\]`.*\(7,\)"),
    "words": (lambda w: ["a", *w[1:]], ValueError, r"`weights\[0\]`.*numbers"),
    "nothing": (lambda w: None, TypeError, "must be a list.*NoneType"),
    "an array": (lambda w: w[0], TypeError, "must be a list.*ndarray"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_set_weights_sets_all_or_none(kind):
    change, error, words = BAD_WEIGHTS[kind]
    model = trained()
    before = state(model)
    weights = change([weight + 1.0 for weight in model.get_weights()])
    with pytest.raises(error, match=words):
        model.set_weights(weights)
    assert_state(model, before)


# Files of models


def drop(key):
    return lambda config: config.pop(key)


def put(part, **entries):
    return lambda config: (config[part] if part else config).update(entries)


def rename_hyperparameter(config):
    config["layers"][1]["config"]["rate"]["config"]["name"] = "other"


def rename_layer(config):
    name = "bilevel_tf>HyperFuture"
    config["layers"][2].update(class_name="HyperFuture", registered_name=name)


UNKNOWN = {"class_name": "FutureMethod", "registered_name": "bilevel_tf>FutureMethod"}
CONFIGS = {
    "no space": (drop("hyperparameters"), "`hyperparameters`.*Received: nothing"),
    "no real space": (put("", hyperparameters=3), "`hyperparameters`.*Received: 3"),
    "no layers": (drop("layers"), "has no graph: layers missing"),
    "unknown method": (
        put("method", **UNKNOWN),
        "`method`.*'FutureMethod'.*bilevel_tf",
    ),
    "unknown argument": (
        lambda config: config["method"]["config"].update(future=3),
        "`method` in the config.*no argument `future`.*written by",
    ),
    "unknown objective": (
        put("objective", class_name="X", registered_name="bilevel_tf>X"),
        "`objective`.*'X'",
    ),
    "unknown layer": (rename_layer, "Layer 'hyper_dense.*of class HyperFuture"),
    "unknown hyperparameter": (rename_hyperparameter, "'other'.*has: rate, l2"),
}


@pytest.mark.parametrize("load", [bt.load_model, keras.models.load_model])
@pytest.mark.parametrize("kind", CONFIGS)
def test_configs_that_lack_something(kind, load, tmp_path):
    change, words = CONFIGS[kind]
    path = with_config(classifier(), tmp_path, change)
    with pytest.raises(ValueError, match=f"(?s){words}") as caught:
        load(path)
    assert len(str(caught.value)) < 1000
    if load is bt.load_model:
        assert str(path) in str(caught.value)


def test_entries_of_a_later_version_are_named(tmp_path):
    path = with_config(
        classifier(), tmp_path, put("", future=1, version="bilevel_tf 9")
    )
    with pytest.warns(UserWarning, match="written by bilevel_tf 9.*left out.*future"):
        bt.load_model(path)


def only(part):
    return lambda name, content: None if part in name else content


FILES = {
    "without config": (only("config"), "zip archive without 'config.json'"),
    "without weights": (only("weights"), "zip archive without 'model.weights.h5'"),
    "half a config": (
        lambda name, part: part[: len(part) // 2] if name == "config.json" else part,
        "'config.json' in the file is not the description",
    ),
    "a list as config": (
        lambda name, part: b"[1]" if name == "config.json" else part,
        "'config.json' in the file is not the description",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_other_archives(kind, tmp_path):
    change, words = FILES[kind]
    path = rewritten(classifier(), tmp_path, change)
    with pytest.raises(ValueError, match=f"{words}.*changed.keras"):
        bt.load_model(path)


def test_other_files(tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(FileNotFoundError, match=r"model\.keras"):
        bt.load_model(path)
    classifier().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ValueError, match=r"was cut short.*model\.keras"):
        bt.load_model(path)
    damaged = bytearray(whole)
    place = whole.index(b"hyperparameters")
    damaged[place : place + 5] = b"HYPER"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"damaged: 'config\.json'"):
        bt.load_model(path)
    keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]).save(path)
    with pytest.raises(ValueError, match=r"of class Sequential.*from_keras"):
        bt.load_model(path)


def test_load_model_does_what_keras_does(tmp_path):
    model, path = trained(), tmp_path / "model.keras"
    model.save(path)
    assert_state(bt.load_model(path), state(model))
    assert not bt.load_model(path, compile=False).compiled
