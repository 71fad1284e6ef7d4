"""What a file of weights says of the model that wrote it."""

import json
import warnings
from typing import Any

import keras
import numpy as np

from bilevel_tf.training.conversion import layer_state

_KEY = "signature"


def write(model: keras.Model, store: Any) -> None:
    """Write the signature of a `BilevelModel` into a Keras weight store."""
    store[_KEY] = np.frombuffer(json.dumps(_describe(model)).encode(), "uint8")


def check(model: keras.Model, store: Any) -> bool:
    """Check that what a store contains belongs into a model.

    Args:
        model: A `BilevelModel`.
        store: The store; one without a signature is not checked.

    Returns:
        Whether the state of the method in the store is that of the model's method.

    Raises:
        ValueError: If the network or the hyperparameters differ, or the predictions of
            the stored weights need a response that the model does not have.
    """
    if _KEY not in store:
        return True
    theirs = json.loads(np.asarray(store[_KEY]).tobytes().decode())
    ours = _describe(model)
    if theirs["hyperparameters"] != ours["hyperparameters"]:
        raise ValueError(
            "The weights belong to another HyperparameterSpace. Received: weights for "
            f"{_list_names(theirs)}; the model has {_list_names(ours)}"
        )
    if theirs["weights"] != ours["weights"]:
        raise ValueError(
            "The weights belong to another network. Received: "
            f"{_describe_difference(theirs['weights'], ours['weights'])}"
        )
    same = all(theirs[key] == ours[key] for key in ("method", "objective"))
    if same:
        return True
    if theirs["needs_response"] and not ours["needs_response"]:
        raise ValueError(
            f"The weights were trained by {theirs['method']} and predict through its "
            "response, which the model does not have. Compile it with method="
            f"{theirs['method']}(...) first. Received: method={ours['method']}"
        )
    if model.method is not None:
        warnings.warn(
            f"The weights were trained with {theirs['method']} and "
            f"{theirs['objective']}, and the model is compiled with {ours['method']} "
            f"and {ours['objective']}, which start with a new state.",
            stacklevel=2,
        )
    return False


def _describe(model):
    method, scales = model.method, model.hyperparameters.scales
    layers = layer_state.walk(model)
    responds = any(getattr(layer, "responses", None) for layer in layers)
    return {
        "hyperparameters": {name: list(s.shape) for name, s in scales.items()},
        "weights": [list(v.shape) for v in layer_state.graph_variables(model)],
        "method": method and type(method).__name__,
        "objective": type(model.objective).__name__,
        "needs_response": responds and not getattr(method, "centered", True),
    }


def _list_names(description, most=8):
    shapes = description["hyperparameters"]
    parts = [f"'{name}' of shape {tuple(s)}" for name, s in shapes.items()]
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def _describe_difference(theirs, ours):
    if len(theirs) != len(ours):
        return f"{len(theirs)} weights and other variables; the model has {len(ours)}"
    pairs = zip(theirs, ours, strict=True)
    place, (their, our) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
    return f"shape {tuple(their)} for variable {place}, which has {tuple(our)}"
