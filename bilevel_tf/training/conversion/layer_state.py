"""What a layer has beyond its config: weights, flags, random states, vocabularies.

Two layers of one structure, such as a layer and its copy, list their parts in the same
order, if what responses add to hyper-layers is left out.
"""

import tempfile
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.response.response import Response
from bilevel_tf.network.responding_network import RespondingNetwork

_OWN_VARIABLES = keras.layers.Layer.save_own_variables
_SETTABLE = ("supports_masking", "autocast")
_PLAIN = (type(None), bool, int, float, str, bytes, np.ndarray, np.generic)


def walk(layer: keras.Layer) -> list[keras.Layer]:
    """List a layer or model and all layers in it, without responses and spaces."""
    layers = _keras.flatten_layers(layer, include_self=True)
    return [la for la in layers if not isinstance(la, (Response, HyperparameterSpace))]


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """List the weights of a layer or model, without those that `walk` leaves out."""
    left_out = _left_out(layer)
    return [v for v in layer.weights if id(v) not in left_out]


def graph_variables(layer: keras.Layer) -> list[keras.Variable]:
    """List the weights and seeds of a layer, or of the layers in a model's graph.

    Those of responses and spaces are left out.
    """
    left_out = _left_out(layer)
    # Methods and objectives give a model state that is not in the layers of its graph.
    model = isinstance(layer, RespondingNetwork) and isinstance(layer, keras.Model)
    parts = layer.layers if model else [layer]
    found = {id(v): v for part in parts for v in part.variables}
    return [v for key, v in found.items() if key not in left_out]


def copy_attributes(
    old: keras.Layer, new: keras.Layer, changed: Iterable[str] = ()
) -> None:
    """Set what a user may have set on a layer after its construction.

    That are the flags for masks and casts, and public attributes with plain values that
    the new layer does not have; also in sublayers, unless they differ.

    Args:
        old: The layer whose attributes they are.
        new: Its copy.
        changed: Names of attributes that are to differ. Defaults to none.
    """
    pairs = [(old, new)]
    if type(old) is type(new):
        parts = walk(old), walk(new)
        kinds = [[type(part) for part in layers] for layers in parts]
        pairs = list(zip(*parts, strict=True)) if kinds[0] == kinds[1] else pairs
    for theirs, ours in pairs:
        _copy_own_attributes(theirs, ours, changed if ours is new else ())


def _copy_own_attributes(old, new, changed):
    for name in _SETTABLE:
        if name not in changed and getattr(new, name) != getattr(old, name):
            setattr(new, name, getattr(old, name))
    present = vars(new)
    for name, value in vars(old).items():
        if name not in present and not name.startswith("_") and _is_plain(value):
            setattr(new, name, _copy_plain(value))


def copy_state(old: keras.Layer, new: keras.Layer, values: Iterable[Any]) -> None:
    """Give a layer the state of another one of its structure.

    Args:
        old: The layer whose state it is.
        new: A layer that is built. Further weights of it, such as the scales of a
            posterior, keep their initial values.
        values: The values of the weights of `new`, in order, as arrays.

    Raises:
        ValueError: If a value does not fit its weight.
    """
    _copy_stores(old, new)
    weights, values = own_weights(new), list(values)
    shapes = [np.shape(value) for value in values]
    expected = [tuple(weight.shape) for weight in weights]
    if shapes != expected[: len(shapes)]:
        raise ValueError(
            f"{type(old).__name__} '{old.name}' cannot be converted: its copy, made "
            f"from its config, has weights of other shapes. Let `get_config` return "
            f"all that its constructor needs. Received: weights of shapes {shapes}, "
            f"and {expected} in the copy"
        )
    for weight, value in zip(weights, values, strict=False):
        weight.assign(value)
    seeds = [[v for v in graph_variables(la) if _is_seed(v)] for la in (old, new)]
    if len(seeds[0]) == len(seeds[1]):
        for theirs, ours in zip(*seeds, strict=True):
            ours.assign(theirs)
    for layer in walk(new):
        # From its weights; without any, a layer would forget what it has learnt.
        if hasattr(layer, "finalize_state") and layer.weights:
            layer.finalize_state()


def copy_flags(old: keras.Layer, new: keras.Layer) -> None:
    """Set `trainable` of a layer, its sublayers and its variables as in another one."""
    flags = get_flags(old)
    set_flags(new, {key: flags[key] for key in ("layers", "variables")})


def get_flags(model: keras.Layer) -> dict[str, list[bool]]:
    """Return what can be set on layers and variables later, in their order."""
    layers = walk(model)
    return {
        "layers": [layer.trainable for layer in layers],
        "variables": [variable.trainable for variable in graph_variables(model)],
        **{name: [getattr(layer, name) for layer in layers] for name in _SETTABLE},
    }


def set_flags(model: keras.Layer, flags: dict[str, list[bool]]) -> None:
    """Set what `get_flags` returned for a model of the same structure.

    Structures that differ share their first parts: a layer itself, and its weights
    before those that it alone has.
    """
    layers = walk(model)
    for layer, flag in zip(layers, flags["layers"], strict=False):
        _keras.set_own_trainable(layer, flag)
    for name in _SETTABLE:
        for layer, flag in zip(layers, flags.get(name, ()), strict=False):
            if getattr(layer, name) != flag:
                setattr(layer, name, flag)
    for variable, flag in zip(graph_variables(model), flags["variables"], strict=False):
        if not _is_seed(variable):
            variable.trainable = flag


def _left_out(layer):
    layers = _keras.flatten_layers(layer, include_self=True)
    responses = [la.response_variables for la in layers if isinstance(la, HyperLayer)]
    spaces = [la.variables for la in layers if isinstance(la, HyperparameterSpace)]
    return {id(v) for variables in [*responses, *spaces] for v in variables}


def _is_seed(variable):
    return variable.name == "seed_generator_state"


def _copy_stores(old, new):
    """Copy what layers keep outside of their weights, such as vocabularies."""
    for ours, theirs in zip(walk(new), walk(old), strict=False):
        if type(ours) is not type(theirs):
            continue
        if type(ours).save_own_variables is not _OWN_VARIABLES:
            store: dict[str, Any] = {}
            theirs.save_own_variables(store)
            ours.load_own_variables(store)
        if hasattr(ours, "save_assets") and not _is_unadapted(theirs):
            with tempfile.TemporaryDirectory() as folder:
                theirs.save_assets(folder)
                ours.load_assets(folder)


def _is_unadapted(layer):
    """Whether a layer of words still has none, which Keras cannot read from a file."""
    if not hasattr(layer, "get_vocabulary"):
        return False
    return not layer.get_vocabulary(include_special_tokens=False)


def _is_plain(value):
    if isinstance(value, dict):
        return all(_is_plain(v) for v in [*value, *value.values()])
    if isinstance(value, (list, tuple)):
        return all(_is_plain(v) for v in value)
    return isinstance(value, _PLAIN)


def _copy_plain(value):
    """A copy in which the containers that Keras tracks are ordinary ones."""
    if isinstance(value, dict):
        return {key: _copy_plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        copied = [_copy_plain(v) for v in value]
        return tuple(copied) if isinstance(value, tuple) else copied
    return value
