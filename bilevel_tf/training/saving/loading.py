"""Read models from files and configs, with errors that say what is wrong."""

import copy
import json
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import keras

from bilevel_tf.training.conversion import networks
from bilevel_tf.training.reasons import shorten

_CONFIG = "config.json"
_GRAPH = ("layers", "input_layers", "output_layers")
_WEIGHTS = ("model.weights.h5", "model.weights.npz")


def load_model(
    filepath: Any,
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """Load a `BilevelModel` from a `.keras` file, which is checked first.

    It does what `keras.models.load_model` does, which loads such files too. But of a
    file that is damaged or is something else, Keras raises errors that do not name it.

    Args:
        filepath: The file that `model.save` wrote, a string or path.
        custom_objects: Dict from names to classes and functions that are not registered
            with Keras. Defaults to `None`.
        compile: Whether the model is compiled as it was. Defaults to `True`, so that
            training can go on.
        safe_mode: Whether Keras refuses `lambda`s, which could be harmful code, in the
            file. Defaults to `True`, as in Keras.

    Returns:
        The `BilevelModel`, in the state in which it was saved.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not of a `BilevelModel`, is damaged, or needs a class
            that is not known here.

    Example:

    >>> hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.9, initial=0.25))
    >>> inputs = keras.Input((8,))
    >>> outputs = bt.HyperDense(1)(bt.HyperDropout(hp["rate"])(inputs))
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.save("model.keras")
    >>> loaded = bt.load_model("model.keras")
    >>> round(loaded.hyperparameters.values()["rate"], 4)
    0.25
    """
    name = _check_file(str(filepath))
    if name != "BilevelModel" and not issubclass(
        _find_class(name, custom_objects), _find_class("bilevel_tf>BilevelModel", None)
    ):
        raise ValueError(
            f"'{filepath}' holds a model of class {name} and not a BilevelModel. Load "
            "it with keras.models.load_model, and convert it with "
            "BilevelModel.from_keras."
        )
    try:
        return keras.models.load_model(filepath, custom_objects, compile, safe_mode)
    except Exception as error:
        raise ValueError(
            f"The model of '{filepath}' cannot be loaded. {shorten(error, 700)}"
        ) from error


def _find_class(name, custom_objects):
    found = keras.saving.get_registered_object(name, custom_objects)
    return found if isinstance(found, type) else object


def _check_file(filepath):
    """Return the class name in a `.keras` file, and check that all of it is there."""
    received = f"Received: filepath='{filepath}'"
    try:
        with zipfile.ZipFile(filepath) as archive:
            names, damaged = archive.namelist(), archive.testzip()
            whole = damaged is None and _CONFIG in names
            config = archive.read(_CONFIG) if whole else None
    except zipfile.BadZipFile:
        raise ValueError(
            "The file is not a .keras file, or was cut short when it was written or "
            f"copied. {received}"
        ) from None
    if damaged is not None:
        raise ValueError(f"The file is damaged: '{damaged}' in it. {received}")
    if config is None or not set(names).intersection(_WEIGHTS):
        missing = _CONFIG if config is None else _WEIGHTS[0]
        raise ValueError(
            f"The file is a zip archive without '{missing}', and so not one that "
            f"`model.save` wrote. {received}"
        )
    try:
        stored = json.loads(config)
        name = stored.get("registered_name") or stored["class_name"]
        return name.removeprefix("bilevel_tf>")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"'{_CONFIG}' in the file is not the description of a model ({error}). "
            f"{received}"
        ) from None


def read_part(
    config: dict[str, Any], version: str | None, key: str, required: type | None = None
) -> Any:
    """Take one object out of the config of a `BilevelModel`.

    Args:
        config: The config, from which `key` is removed.
        version: The version of this library that wrote the config, in words.
        key: The name of the object: "hyperparameters", "method" or "objective".
        required: The class that it must have. Defaults to `None`: it may be missing.

    Raises:
        ValueError: If it is missing, of another class, or cannot be made.
    """
    entry = config.pop(key, None)
    if entry is None and required is None:
        return None
    of = f"`{key}` in the config of BilevelModel '{config.get('name')}'"
    found = attempt(lambda: keras.saving.deserialize_keras_object(entry), of, version)
    if required is not None and not isinstance(found, required):
        given = "nothing" if entry is None else repr(entry)[:100]
        raise ValueError(
            f"{of} must be a serialised {required.__name__}. The config is damaged, or "
            f"not that of a BilevelModel. Received: {given}"
        )
    return found


def read_graph(
    config: dict[str, Any], version: str | None, custom_objects: Any
) -> tuple[Any, Any, str]:
    """Return inputs, outputs and name of the functional model of a config.

    Args:
        config: What is left of a `BilevelModel`'s config.
        version: The version of this library that wrote the config, in words.
        custom_objects: Dict from names to classes that Keras does not know, or `None`.

    Raises:
        ValueError: If it cannot be made; the error names the layer that is at fault.
    """
    sharing = config.pop("sharing", None)
    missing = {"name", *_GRAPH} - set(config)
    unknown = set(config) - {"name", "trainable", *_GRAPH}
    if missing:
        raise ValueError(
            f"The config of BilevelModel '{config.get('name')}' has no graph: "
            f"{', '.join(sorted(missing))} missing. It is damaged, or that of a "
            "subclass with a constructor of its own, which needs its own `from_config`."
        )
    if unknown:
        warnings.warn(
            f"The config of BilevelModel '{config['name']}', written by {version}, has "
            f"entries that are left out here: {', '.join(sorted(unknown))}.",
            stacklevel=3,
        )
        config = {key: value for key, value in config.items() if key not in unknown}
    if sharing is not None:
        config = {**config, "layers": [_separate(la) for la in config["layers"]]}
    try:
        # Keras takes parts out of what it is given.
        return networks.graph_from_config(
            copy.deepcopy(config), custom_objects, sharing
        )
    except Exception as error:
        for entry in config["layers"]:
            what = f"Layer '{entry['name']}' of class {entry['class_name']}"
            attempt(
                lambda entry=entry: keras.saving.deserialize_keras_object(
                    entry, custom_objects
                ),
                what,
                version,
            )
        raise ValueError(
            f"The graph of BilevelModel '{config['name']}' cannot be made: "
            f"{shorten(error)}"
        ) from error


def _separate(entry):
    """The config of a layer, without Keras's note that it occurs in several models.

    Keras would give one layer the nodes of several graphs, and take one for the other.
    """
    entry = {key: part for key, part in entry.items() if key != "shared_object_id"}
    layers = entry["config"].get("layers")
    if isinstance(layers, list) and all("class_name" in layer for layer in layers):
        layers = [_separate(layer) for layer in layers]
        entry["config"] = {**entry["config"], "layers": layers}
    return entry


def attempt(make: Callable, what: str, version: str | None = None) -> Any:
    """Return what a function makes of a config; an error says what could not be made.

    Args:
        make: The function, without arguments.
        what: What it makes, for the error.
        version: The version that wrote the config, in words. Defaults to `None`.

    Raises:
        ValueError: If it fails, also in place of the TypeErrors of which Keras makes a
            dump of the whole config.
    """
    try:
        return make()
    except Exception as error:
        wrote = f" The config was written by {version}." if version else ""
        raise ValueError(
            f"{what} cannot be made: {shorten(error).rstrip('.')}. A class of your own "
            "needs @keras.saving.register_keras_serializable() or `custom_objects`, "
            "and a constructor that takes all that its `get_config` returns, **kwargs "
            f"included.{wrote}"
        ) from error
