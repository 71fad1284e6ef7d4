"""Copies of Keras models, with other layers in place of theirs and nothing lost.

`keras.models.clone_model` loses the flags of nested models, of variables and of inputs,
adapted vocabularies, random states and what a user has set on a layer, and it compiles
what it copies.
"""

from collections.abc import Callable
from typing import Any

import keras

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.network.responding_network import RespondingNetwork
from bilevel_tf.training.conversion import layer_state

Pairs = list[tuple[Any, Any]]


def clone(
    model: keras.Model,
    replace: Callable,
    stand_ins: dict[int, keras.Layer] | None = None,
) -> tuple[keras.Model, Pairs]:
    """Copy a functional or Sequential model, which is not compiled then.

    Layers that occur several times, also in several nested models, are copied once. The
    copies have new weights, which `layer_state` can fill.

    Args:
        model: The model.
        replace: Function from a layer or other operation of the graph to the new one
            that stands in its place. It is not asked for nested models that run their
            graph, which are copied as `model` is.
        stand_ins: Dict from the `id` of a layer to the layer of the model that is
            copied in its place. Defaults to `None`: every layer stands for itself.

    Returns:
        The copy, and pairs of every old operation or model with its copy.
    """
    copies: dict[int, tuple[Any, Any]] = {}
    stand_ins = stand_ins or {}

    def copy(operation):
        operation = stand_ins.get(id(operation), operation)
        if id(operation) not in copies:
            nested = is_transparent(operation)
            new = copy_model(operation) if nested else replace(operation)
            copies[id(operation)] = operation, new
        return copies[id(operation)][1]

    def copy_model(old):
        if isinstance(old, keras.Sequential):
            first = [copy_input(tensor) for tensor in getattr(old, "inputs", [])]
            layers = [*first, *(copy(layer) for layer in old.layers)]
            new = _class_for_layers(old)(layers, name=old.name)
        else:
            inputs = keras.tree.map_structure(copy_input, _keras.get_graph_inputs(old))
            outputs = _keras.run_graph(old, inputs, copy)
            new = _class_for_graph(old)(inputs, outputs, name=old.name)
        if not isinstance(old, RespondingNetwork):
            layer_state.copy_attributes(old, new)
        return new

    return copy(model), list(copies.values())


def is_transparent(operation: Any) -> bool:
    """Whether an operation is a model that can be copied layer by layer.

    A model with a `call` of its own is one if it is made from inputs and outputs: the
    copy is then of the same class.
    """
    if not _keras.is_graph(operation):
        return False
    made_from_graph = not isinstance(operation, keras.Sequential) and (
        _keras.takes_graph(type(operation))
    )
    return is_ordinary(operation) or made_from_graph


def is_ordinary(model: keras.Model) -> bool:
    """Whether a model with a graph has no `call` of its own beside it."""
    ours = type(model).call is RespondingNetwork.call
    return ours or _keras.runs_its_graph(model)


def graph_layers(model: keras.Model) -> list[keras.Layer]:
    """List the layers of a graph; a nested model counts as its own layers."""
    layers: list[keras.Layer] = []
    for layer in model.layers:
        nested = is_transparent(layer)
        layers.extend(graph_layers(layer) if nested else [layer])
    return layers


def get_sharing(model: keras.Model) -> list[int]:
    """Say where layers and nested models first occur in a graph.

    Returns:
        A number for every occurrence: the place of the first occurrence of that layer.
    """
    first: dict[int, int] = {}
    occurrences = _list_occurrences(model)
    return [first.setdefault(id(la), place) for place, la in enumerate(occurrences)]


def share(model: keras.Model, sharing: list[int]) -> keras.Model:
    """Make a graph in which layers are shared as `get_sharing` said of another one.

    Keras forgets that a layer in a nested model also occurs outside of it.

    Args:
        model: A functional model with the structure of the other one.
        sharing: What `get_sharing` returned.
    """
    if sharing == get_sharing(model):
        return model
    layers = _list_occurrences(model)
    pairs = zip(layers, sharing, strict=True)
    stand_ins = {id(layer): layers[place] for layer, place in pairs}
    return clone(model, lambda layer: layer, stand_ins)[0]


def _list_occurrences(model):
    """List layers and nested models as often as they occur in models."""
    occurrences = []
    for layer in model.layers:
        # A space is a layer of the model, and not one of its graph.
        if not isinstance(layer, HyperparameterSpace):
            occurrences.append(layer)
        if is_transparent(layer):
            occurrences += _list_occurrences(layer)
    return occurrences


def copy_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A new input of the same shape, dtype and name, sparse or optional as it is."""
    layer, _ = _keras.get_source(tensor)
    return type(layer).from_config(layer.get_config()).output


def _class_for_graph(model):
    """The class of a copy: the same, unless it is not made from inputs and outputs."""
    ours = isinstance(model, RespondingNetwork)
    return type(model) if _keras.takes_graph(type(model)) and not ours else keras.Model


def _class_for_layers(model):
    own_constructor = type(model).__init__ is not keras.Sequential.__init__
    return keras.Sequential if own_constructor else type(model)
