"""Where the linearisation of a network ends: before a final softmax or sigmoid.

Responses are fitted through the linearised network. If the last layer is a hyper-layer
with one of these activations, the network is linearised up to the layer's logits, and
the activation, its head, is applied to the linearised logits.
"""

from collections.abc import Callable
from typing import Any

import keras

from bilevel_tf import _keras
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer

_PEELED = ("softmax", "sigmoid", "log_softmax")


def output_heads(outputs: list) -> tuple[list[Callable], frozenset[keras.Layer]]:
    """Find the functions that turn linearised outputs into predictions.

    Args:
        outputs: The symbolic outputs of the model, flat.

    Returns:
        One function per output, and the layers that must leave out their activation.
    """
    heads, peeled = [], set()
    for layer, activation in _find_final_activations(outputs):
        peel = activation in _PEELED and isinstance(layer, HyperLayer)
        heads.append(layer.activation if peel else _return_unchanged)
        if peel:
            peeled.add(layer)
    return heads, frozenset(peeled)


def check_outputs_linearize(outputs: list, losses: list) -> None:
    """Raise a `ValueError` if the softmax of an output is a layer of its own.

    Args:
        outputs: The symbolic outputs of the model, flat.
        losses: The loss of each output, or `None`; an output without one may be
            anything.
    """
    pairs = zip(losses, _find_final_activations(outputs), strict=True)
    for loss, (layer, activation) in pairs:
        if loss is None:
            continue
        if activation in _PEELED and not isinstance(layer, HyperLayer):
            raise ValueError(
                f"The loss is linearised before the final {activation}, which must be "
                "the activation of a hyper-layer. Give it to the last layer, as in "
                f"HyperDense(..., activation='{activation}'), or leave it out and set "
                f"from_logits=True in the loss. Received: {activation} in "
                f"{type(layer).__name__} '{layer.name}'"
            )


def check_losses_fit_outputs(outputs: list, losses: list) -> None:
    """Raise a `ValueError` for a softmax or sigmoid under a loss on logits.

    Args:
        outputs: The symbolic outputs of the model, flat.
        losses: The loss of each output, or `None`.
    """
    pairs = zip(losses, _find_final_activations(outputs), strict=True)
    for loss, (layer, activation) in pairs:
        if activation in _PEELED and getattr(loss, "from_logits", False):
            raise ValueError(
                f"The output of '{layer.name}' goes through {activation}, and its loss "
                f"{type(loss).__name__} has from_logits=True. Leave out the "
                "activation, or set from_logits=False. "
                f"Received: activation='{activation}' and from_logits=True"
            )


def _return_unchanged(tensor: Any) -> Any:
    return tensor


def _find_final_activations(outputs: list) -> list[tuple[keras.Layer, str | None]]:
    """Find the layer that makes each output, and the name of its activation."""
    finals: list[tuple[keras.Layer, str | None]] = []
    for output in outputs:
        layer = _find_maker(output)
        activation = getattr(layer, "activation", None)
        name = getattr(activation, "__name__", None)
        # Beside keras.layers.Softmax there are operations, as from keras.ops.softmax.
        finals.append((layer, name or _OPERATIONS.get(type(layer).__name__)))
    return finals


_OPERATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "LogSoftmax": "log_softmax"}


def _find_maker(tensor: Any) -> keras.Layer:
    """Find the layer that makes a tensor, also in a nested model or at each step."""
    layer, index = _keras.get_source(tensor)
    if isinstance(layer, keras.Model) and hasattr(layer, "outputs"):
        return _find_maker(layer.outputs[index])
    return layer.layer if type(layer) is keras.layers.TimeDistributed else layer
