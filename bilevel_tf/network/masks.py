"""Masks of outputs: steps that losses and metrics leave out.

Keras attaches a mask to the very tensor that a layer returns. A tensor that is computed
from it has none, and its loss would count padded steps.
"""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.network.network import Network


def hand_on_masks(outputs: Any, replacements: Any) -> None:
    """Attach the masks of outputs to the tensors that take their place.

    Args:
        outputs: What a network returned.
        replacements: Tensors in the same structure, computed from these.
    """
    flat = keras.tree.flatten(outputs), keras.tree.flatten(replacements)
    for output, replacement in zip(*flat, strict=True):
        mask = _keras.get_mask(output)
        if mask is not None:
            _keras.set_mask(replacement, mask)


def find_masked_outputs(network: Network) -> list[str]:
    """Name the outputs that carry a mask.

    Traces a pass, without data: symbolic outputs do not show a mask that is made inside
    a nested model.
    """
    found: list[str] = []
    if not any(map(_may_mask, network.layers)):
        return found

    def run(inputs):
        with keras.StatelessScope():
            outputs = keras.tree.flatten(network(inputs, training=False))
        pairs = zip(network.output_names, outputs, strict=True)
        found.extend(n for n, output in pairs if _keras.get_mask(output) is not None)

    specs = keras.tree.map_structure(
        lambda t: tf.TensorSpec(t.shape, t.dtype), network.inputs
    )
    tf.function(run, autograph=False).get_concrete_function(specs)
    return found


def name_mask_makers(network: Network) -> str:
    """Name the layers that make masks, for errors."""
    makers = [la for la in network.layers if _may_mask(la) and not _passes_masks(la)]
    return ", ".join(f"{type(la).__name__} '{la.name}'" for la in makers)


def _may_mask(layer):
    """Whether the outputs of a layer can have a mask that its inputs do not have."""
    if isinstance(layer, keras.layers.Embedding):
        return layer.mask_zero
    own = not type(layer).__module__.startswith(("keras.", "bilevel_tf."))
    return own or isinstance(layer, keras.layers.Masking)


def _passes_masks(layer):
    return type(layer).compute_mask is keras.Layer.compute_mask
