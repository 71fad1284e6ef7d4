"""What a `BilevelModel` is made of, checked before Keras sees it."""

import inspect
import warnings
from typing import Any

import keras

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.network.responding_network import RespondingNetwork
from bilevel_tf.training.conversion.cloning import graph_layers

_WRAP = (
    "Write your network as a keras.Model or keras.layers.Layer, and make the "
    "BilevelModel around it: inputs = keras.Input(shape); "
    "BilevelModel(inputs, network(inputs), hyperparameters=hp)."
)


def check_arguments(
    model_class: type, args: tuple, kwargs: dict[str, Any], hyperparameters: Any
) -> HyperparameterSpace:
    """Check what the constructor of a `BilevelModel` was given, and return the space.

    Args:
        model_class: The class that is made.
        args: Positional arguments: inputs, outputs and what Keras takes after them.
        kwargs: Arguments by name.
        hyperparameters: The space.

    Raises:
        TypeError: If an argument is missing or not of its kind.
    """
    if not isinstance(hyperparameters, HyperparameterSpace):
        raise TypeError(
            "`hyperparameters` must be a bilevel_tf.HyperparameterSpace. "
            f"Received: hyperparameters={hyperparameters!r}"
        )
    given = {**dict(zip(("inputs", "outputs"), args, strict=False)), **kwargs}
    name = model_class.__name__
    if isinstance(given.get("inputs"), keras.Model) and "outputs" not in given:
        raise TypeError(
            f"{name} needs `inputs` and `outputs`, and not a model. Convert one with "
            f"{name}.from_keras(model, hp), or use its model.inputs and model.outputs. "
            f"Received: inputs of type {type(given['inputs']).__name__}"
        )
    for argument in ("inputs", "outputs"):
        if argument not in given:
            raise TypeError(
                f"{name} needs `{argument}`, because it is a functional model."
                f"{_describe_own_call(model_class)} {_WRAP} "
                f"Received: {', '.join(given) or 'nothing'}"
            )
        for tensor in keras.tree.flatten(given[argument]):
            if not isinstance(tensor, keras.KerasTensor):
                raise TypeError(
                    f"`{argument}` of {name} must be symbolic tensors: keras.Input() "
                    "and what layers make of it, or lists or dicts of them. "
                    f"Received: {argument} with a value of type {type(tensor).__name__}"
                )
    return hyperparameters


def _describe_own_call(model_class):
    if model_class.call is RespondingNetwork.call:
        return ""
    return f" The `call` of {model_class.__name__} cannot stand in for a graph."


def check_savable(model: Any, from_config: Any) -> None:
    """Check that a model can be made again from its config.

    Args:
        model: A `BilevelModel` or an object of a subclass.
        from_config: The class method of `BilevelModel`.

    Raises:
        ValueError: If its class has a constructor of its own, and no `from_config`; or
            if a layer has no config.

    Warns:
        UserWarning: If the constructor of a layer does not take its config.
    """
    kind = type(model)
    same = getattr(kind.from_config, "__func__", None) is from_config.__func__
    if same and not _keras.takes_graph(kind):
        raise ValueError(
            f"{kind.__name__} '{model.name}' cannot be saved: its constructor takes "
            "other arguments than BilevelModel's, and its graph cannot be given to it. "
            "Give the class a `get_config` that adds them and a classmethod "
            "`from_config` that makes the model of them, or replace the class by a "
            "function that returns a BilevelModel."
        )
    for layer in graph_layers(model):
        if type(layer).__module__.partition(".")[0] not in ("keras", "bilevel_tf"):
            _check_config(layer)


def _check_config(layer):
    """Check a layer of the user's own, without making another one of it."""
    named = f"{type(layer).__name__} '{layer.name}'"
    try:
        config = layer.get_config()
    except NotImplementedError as error:
        raise ValueError(
            f"{named} cannot be saved: its constructor has arguments that Keras cannot "
            "write down. Give it a `get_config` that returns them; hyperparameters by "
            "bilevel_tf.hyperparameters.config_of."
        ) from error
    if not layer.from_config.__func__.__module__.startswith("keras."):
        return
    try:
        inspect.signature(type(layer).__init__).bind(layer, **config)
    except TypeError as error:
        warnings.warn(
            f"The model is saved, but {named} cannot be made from its config when it "
            f"is loaded ({error}). Give its constructor **kwargs, for `name` and "
            "others, and a `get_config` that returns all other arguments.",
            stacklevel=2,
        )
