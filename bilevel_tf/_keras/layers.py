"""Private parts of Keras layers and of the tensors between them."""

from contextlib import AbstractContextManager

import keras
import tensorflow as tf
from keras.src.backend import AutocastScope


def get_own_losses(layer: keras.Layer) -> list[tf.Tensor]:
    """Return what a layer itself has added by `add_loss` in its last call.

    The public `layer.losses` has also weight penalties and the losses of sublayers.
    An activity regularizer's loss is among those returned.
    """
    return list(layer._get_own_losses())


def get_source(tensor: keras.KerasTensor) -> tuple[keras.Layer, int]:
    """Return the layer that makes a symbolic tensor, and which of its outputs it is."""
    operation, _, index = tensor._keras_history
    return operation, index


def get_mask(tensor: keras.KerasTensor | tf.Tensor) -> tf.Tensor | None:
    """Return the mask that Keras has attached to a tensor, or `None`."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: tf.Tensor, mask: tf.Tensor) -> None:
    """Attach a mask to a tensor, so that losses and metrics of Keras heed it."""
    tensor._keras_mask = mask


def replace_sublayers(
    layer: keras.Layer, name: str, sublayers: dict[str, keras.Layer]
) -> None:
    """Set `layer.<name>` to other sublayers by name, in a layer that is built already.

    A built layer refuses new state. An ordinary assignment would moreover leave the
    variables of the former sublayers with the layer.
    """
    layer._tracker.unlock()
    for former in getattr(layer, name).values():
        layer._tracker.untrack(former)
    setattr(layer, name, sublayers)
    layer._tracker.lock()


def without_autocast() -> AbstractContextManager:
    """Return a context in which variables are read in their own dtype.

    In a layer of mixed precision Keras casts every variable that `call` reads to the
    compute dtype.
    """
    return AutocastScope(None)
