"""Checks of what `compile` is given for the outputs of a model."""

from typing import Any

import keras

from bilevel_tf.network.network import Network
from bilevel_tf.network.output_heads import check_losses_fit_outputs


def check_losses(network: Network, loss: Any) -> None:
    """Raise a `ValueError` if losses or their weights do not fit the outputs.

    Args:
        network: The compiled network.
        loss: The loss as given to `compile`.
    """
    _check_parts(network, loss, "loss")
    _check_parts(network, network.loss_weights, "loss_weights")
    _check_complete(network, loss)
    check_losses_fit_outputs(keras.tree.flatten(network.outputs), network.losses)


def _check_parts(network, given, argument):
    """Raise a `ValueError` for a part of an argument that belongs to no output."""
    outputs, names = network.outputs, network.output_names
    if isinstance(given, dict):
        keys = set(outputs) if isinstance(outputs, dict) else set()
        unknown = [str(key) for key in given if key not in keys | set(names)]
        if unknown:
            raise ValueError(
                f"`{argument}` must be by the names of the outputs: "
                f"{', '.join(sorted(keys) or names)}. "
                f"Received: {argument} for {', '.join(unknown)}"
            )
    several = isinstance(given, (list, tuple)) and len(names) > 1
    if several and len(keras.tree.flatten(given)) > len(names):
        raise ValueError(
            f"`{argument}` must have one entry per output, {len(names)} for "
            f"{', '.join(names)}. Received: {len(keras.tree.flatten(given))} entries"
        )


def _check_complete(network, loss):
    """Raise a `ValueError` if a dict leaves out outputs that are not in a dict."""
    if not isinstance(loss, dict) or isinstance(network.outputs, dict):
        return
    missing = [name for name in network.output_names if name not in loss]
    if missing:
        given = {name: None for name in missing}
        raise ValueError(
            "`loss` must name every output if the outputs are no dict; `None` stands "
            f"for an output without a loss: add {given}. "
            f"Received: loss without {', '.join(missing)}"
        )
