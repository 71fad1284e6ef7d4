"""Where the linearisation of a network ends: before a final softmax or sigmoid."""

from collections.abc import Callable

import keras

from bilevel_tf.layers.hyper.hyper_layer import HyperLayer

_PEELED = ("softmax", "sigmoid", "log_softmax")


def output_heads(outputs: list) -> tuple[list[Callable], frozenset]:
    """What turns linearised outputs into predictions.

    Args:
        outputs: The symbolic outputs of the model, flat.

    Returns:
        One function per output, and the layers that must leave out their activation.
    """
    heads, peeled = [], set()
    for layer, activation in _final_activations(outputs):
        peel = activation in _PEELED and isinstance(layer, HyperLayer)
        heads.append(layer.activation if peel else _return_unchanged)
        if peel:
            peeled.add(layer)
    return heads, frozenset(peeled)


def check_outputs_linearize(outputs: list) -> None:
    """Raise a `ValueError` if the softmax of an output is a layer of its own."""
    for layer, activation in _final_activations(outputs):
        if activation in _PEELED and not isinstance(layer, HyperLayer):
            raise ValueError(
                f"The loss is linearised before the final {activation}, which is in "
                f"{type(layer).__name__} '{layer.name}', not in a hyper-layer. Give it "
                f"to the last layer, as in HyperDense(..., activation='{activation}'), "
                "or leave it out and set from_logits=True in the loss."
            )


def check_losses_fit_outputs(outputs: list, losses: list) -> None:
    """Raise a `ValueError` for a softmax or sigmoid under a loss on logits.

    Args:
        outputs: The symbolic outputs of the model, flat.
        losses: The loss of each output, or `None`.
    """
    pairs = zip(losses, _final_activations(outputs), strict=True)
    for loss, (layer, activation) in pairs:
        if activation in _PEELED and getattr(loss, "from_logits", False):
            raise ValueError(
                f"The output of '{layer.name}' goes through {activation}, and its loss "
                f"{type(loss).__name__} has from_logits=True. Leave out the "
                "activation, or set from_logits=False."
            )


def _return_unchanged(tensor):
    return tensor


def _final_activations(outputs):
    """The layer that makes each output, and the name of its activation."""
    finals = []
    for output in outputs:
        layer = _find_maker(output)
        if isinstance(layer, keras.layers.Softmax):
            finals.append((layer, "softmax"))
            continue
        activation = getattr(layer, "activation", None)
        finals.append((layer, getattr(activation, "__name__", None)))
    return finals


def _find_maker(tensor):
    """The layer that makes a tensor, inside of nested models if need be."""
    layer, _, index = tensor._keras_history
    nested = isinstance(layer, keras.Model) and hasattr(layer, "outputs")
    return _find_maker(layer.outputs[index]) if nested else layer
