"""Malformed files, models and arguments of saving, loading, export and conversion."""

import json
import pathlib
import tempfile
import zipfile

import keras
import numpy as np

import bilevel_tf as bt
from tests.malformed.row import Row


def space(**more):
    return bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.9, initial=0.3), **more)


def model(hp=None, units=3, name="small"):
    hp, inputs = hp or space(), keras.Input((4,))
    x = bt.HyperDropout(hp["rate"], name="drop")(inputs)
    outputs = bt.HyperDense(units, name="head")(x)
    return bt.BilevelModel(inputs, outputs, hyperparameters=hp, name=name)


def plain():
    layers = [keras.layers.Dropout(0.2, name="drop"), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((4,)), *layers], name="plain")


class OwnCall(keras.Model):
    def __init__(self, units=3):
        super().__init__(name="own")
        self.dense = keras.layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)


class NoGraph(bt.BilevelModel):
    def call(self, inputs):
        return inputs


class Hides(keras.layers.Layer):
    def __init__(self, hp):
        super().__init__(name="hiding")
        self.drop = bt.HyperDropout(hp["rate"])

    def call(self, inputs, training=None):
        return self.drop(inputs, training=training)


def in_folder(do):
    """Call a function with the path of a folder, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return do(pathlib.Path(folder))


def load_bytes(content):
    def do(folder):
        (folder / "given.keras").write_bytes(content)
        return bt.load_model(folder / "given.keras")

    return lambda: in_folder(do)


def load_archive(**parts):
    def do(folder):
        with zipfile.ZipFile(folder / "given.keras", "w") as archive:
            for name, content in parts.items():
                archive.writestr(name.replace("_", "."), content)
        return bt.load_model(folder / "given.keras")

    return lambda: in_folder(do)


def load_cut():
    def do(folder):
        path = folder / "given.keras"
        model().save(path)
        path.write_bytes(path.read_bytes()[:-100])
        return bt.load_model(path)

    return in_folder(do)


def load_plain():
    def do(folder):
        plain().save(folder / "given.keras")
        return bt.load_model(folder / "given.keras")

    return in_folder(do)


def from_changed_config(change):
    config = json.loads(json.dumps(model().get_config()))
    change(config)
    return bt.BilevelModel.from_config(config)


def unknown_layer(config):
    config["layers"][-1].update(class_name="HyperNew", registered_name="pkg>HyperNew")


def load_weights_of(other):
    def do(folder):
        other().save_weights(folder / "other.weights.h5")
        model().load_weights(folder / "other.weights.h5")

    return lambda: in_folder(do)


def load_damaged_weights():
    def do(folder):
        path = folder / "damaged.weights.h5"
        model().save_weights(path)
        path.write_bytes(path.read_bytes()[:500])
        model().load_weights(path)

    return in_folder(do)


def around(layer):
    hp, inputs = space(), keras.Input((4,))
    return bt.BilevelModel(inputs, layer(hp)(inputs), hyperparameters=hp)


def from_keras(tune=None, given=None):
    return bt.BilevelModel.from_keras(given or plain(), space(), tune)


def built_own_call():
    own = OwnCall()
    own(np.zeros((1, 4)))
    return own


def two_spaces():
    hp, inputs = space(), keras.Input((4,))
    outputs = bt.HyperDropout(hp["rate"], name="drop")(inputs)
    return bt.BilevelModel(inputs, outputs, hyperparameters=space(more=bt.Positive(1)))


ROWS = [
    # Files
    Row(
        "save to .h5",
        lambda: model().save("model.h5"),
        ValueError,
        ("HDF5", "model.save('model.keras')", "'model.h5'"),
    ),
    Row(
        "save to a name without suffix",
        lambda: model().save("folder"),
        ValueError,
        ("`filepath`", "'.keras'", "export", "'folder'"),
    ),
    Row(
        "load a file that is no archive",
        load_bytes(b"hello"),
        ValueError,
        ("not a .keras file", "given.keras"),
    ),
    Row("load a file cut short", load_cut, ValueError, ("cut short", "given.keras")),
    Row(
        "load another archive",
        load_archive(readme_txt="hello"),
        ValueError,
        ("zip archive without 'config.json'", "given.keras"),
    ),
    Row(
        "load an archive with bad JSON",
        load_archive(**{"config_json": "{", "model_weights_h5": ""}),
        ValueError,
        ("'config.json'", "not the description of a model", "given.keras"),
    ),
    Row(
        "load a plain model",
        load_plain,
        ValueError,
        ("Sequential", "not a BilevelModel", "from_keras", "given.keras"),
    ),
    Row(
        "load a file that is not there",
        lambda: bt.load_model("nowhere.keras"),
        FileNotFoundError,
        ("nowhere.keras",),
    ),
    Row(
        "config without the space",
        lambda: from_changed_config(lambda config: config.pop("hyperparameters")),
        ValueError,
        ("`hyperparameters`", "'small'", "HyperparameterSpace", "Received: nothing"),
    ),
    Row(
        "config without layers",
        lambda: from_changed_config(lambda config: config.pop("layers")),
        ValueError,
        ("'small'", "no graph", "layers"),
    ),
    Row(
        "config with an unknown layer class",
        lambda: from_changed_config(unknown_layer),
        ValueError,
        ("Layer 'head'", "HyperNew", "register_keras_serializable"),
    ),
    Row(
        "weights of another network",
        load_weights_of(lambda: model(units=5)),
        ValueError,
        ("'small'", "other.weights.h5", "as it was", "(4, 5)", "(4, 3)"),
    ),
    Row(
        "weights of another space",
        load_weights_of(lambda: model(space(more=bt.Positive(1.0)))),
        ValueError,
        ("other.weights.h5", "another HyperparameterSpace", "'more'", "'rate'"),
    ),
    Row(
        "damaged weights",
        load_damaged_weights,
        OSError,
        ("damaged.weights.h5", "as it was", "damaged, cut short"),
    ),
    Row(
        "weights that are not there",
        lambda: model().load_weights("nowhere.weights.h5"),
        FileNotFoundError,
        ("nowhere.weights.h5",),
    ),
    Row(
        "set_weights with too few arrays",
        lambda: model().set_weights([np.zeros((4, 3))]),
        ValueError,
        ("`weights`", "'small'", "Received: 1 arrays"),
    ),
    Row(
        "set_weights with a wrong shape",
        lambda: model().set_weights(
            [np.zeros((1, *w.shape)) for w in model().get_weights()]
        ),
        ValueError,
        ("`weights[0]`", "head/kernel", "(4, 3)", "(1, 4, 3)"),
    ),
    # Construction
    Row(
        "a model with a call in place of a graph",
        lambda: NoGraph(hyperparameters=space()),
        TypeError,
        ("NoGraph needs `inputs`", "`call` of NoGraph", "keras.Input", "nothing"),
    ),
    Row(
        "outputs left out",
        lambda: bt.BilevelModel(keras.Input((4,)), hyperparameters=space()),
        TypeError,
        ("needs `outputs`", "Received: inputs"),
    ),
    Row(
        "a model in place of inputs",
        lambda: bt.BilevelModel(plain(), hyperparameters=space()),
        TypeError,
        ("from_keras", "Sequential"),
    ),
    Row(
        "arrays in place of symbolic tensors",
        lambda: bt.BilevelModel(np.zeros(4), np.zeros(4), hyperparameters=space()),
        TypeError,
        ("`inputs`", "keras.Input", "ndarray"),
    ),
    Row(
        "two spaces in one model",
        two_spaces,
        ValueError,
        ("'drop'", "'rate'", "with rate)", "with rate, more)"),
    ),
    Row(
        "save a layer that hides hyperparameters",
        lambda: around(Hides).get_config(),
        ValueError,
        ("Hides 'hiding'", "cannot be saved", "`get_config`", "config_of"),
    ),
    # Conversion
    Row(
        "from_keras of a subclassed model",
        lambda: from_keras(given=built_own_call()),
        ValueError,
        ("'own'", "OwnCall", "BilevelModel(inputs, model(inputs)"),
    ),
    Row(
        "from_keras of a model that is not built",
        lambda: from_keras(given=keras.Sequential([keras.layers.Dense(3)])),
        ValueError,
        ("must be built", "Input"),
    ),
    Row(
        "from_keras of a layer",
        lambda: from_keras(given=keras.layers.Dense(3)),
        ValueError,
        ("`model`", "Sequential or functional", "Received", "Dense"),
    ),
    Row(
        "from_keras with an unknown argument",
        lambda: from_keras({"drop": {"rates": 0.2}}),
        ValueError,
        ("`tune`", "Dropout 'drop'", "rates", "rate"),
    ),
    Row(
        "from_keras with an unknown layer",
        lambda: from_keras({"dropp": {"rate": 0.2}}),
        ValueError,
        ("`tune`", "'dropp'", "drop"),
    ),
    Row(
        "from_keras with a layer as key",
        lambda: from_keras({keras.layers.Dense(3, name="d"): {"units": 2}}),
        ValueError,
        ("keys of `tune`", "names or Keras layer classes", "<Dense name=d", "'d'"),
    ),
    Row(
        "to_keras with a layer that hides hyperparameters",
        lambda: around(Hides).to_keras(),
        ValueError,
        ("Hides 'hiding'", "cannot be converted", "`get_config`"),
    ),
    # Export
    Row(
        "export to no path",
        lambda: model().export(None),
        TypeError,
        ("`filepath`", "folder", "Received: filepath=None"),
    ),
    Row(
        "export with an unknown argument",
        lambda: model().export("folder", colour="red"),
        TypeError,
        ("colour", "input_signature"),
    ),
    Row(
        "call_at without a response",
        lambda: model().call_at(np.zeros((1, 4)), {"rate": 0.5}),
        RuntimeError,
        ("no best response", "DeltaSTN", "Received: method="),
    ),
]
