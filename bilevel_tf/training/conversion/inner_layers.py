"""Layers inside other layers, which conversion copies as they are."""

import warnings
from typing import Any

import keras

from bilevel_tf import _keras


def check_tuned_reach(model: keras.Model, tune: Any) -> None:
    """Say which layers `tune` means and does not reach, being inside other layers.

    Wrappers such as `TimeDistributed` and a user's own layers make their sublayers
    themselves, so that these cannot be exchanged.

    Args:
        model: The Keras model to convert.
        tune: Dict from layer names or classes to dicts of arguments. Anything else is
            left to other checks.

    Raises:
        ValueError: If a name or class is that of inner layers alone.

    Warns:
        UserWarning: If a class has inner layers beside those that are reached.
    """
    if not isinstance(tune, dict):
        return
    leaves = _list_leaves(model)
    for key in tune:
        inner = [
            f"'{layer.name}' in {type(leaf).__name__} '{leaf.name}'"
            for leaf in leaves
            for layer in _keras.flatten_layers(leaf)
            if _is_meant(layer, key)
        ]
        if not inner:
            continue
        shown = ", ".join(inner[:5]) + (", …" if len(inner) > 5 else "")
        name = key if isinstance(key, str) else key.__name__
        message = (
            f"`tune` has '{name}', and does not reach layers inside other layers: "
            f"{shown}. Take them out of there, or build the layer around them with one "
            "of this library, such as "
            "keras.layers.TimeDistributed(bilevel_tf.HyperDense(...))."
        )
        if not any(_is_meant(leaf, key) for leaf in leaves):
            raise ValueError(f"{message} Received: tune={{{name!r}: ...}}")
        warnings.warn(message, UserWarning, stacklevel=3)


def _is_meant(layer: keras.Layer, key: Any) -> bool:
    return layer.name == key or type(layer) is key


def _list_leaves(model: keras.Layer) -> list[keras.Layer]:
    """List the layers of a model; a nested graph counts as its own layers."""
    leaves: list[keras.Layer] = []
    for layer in model.layers:
        graph = isinstance(layer, keras.Sequential) or hasattr(layer, "operations")
        leaves.extend(_list_leaves(layer) if graph else [layer])
    return leaves
