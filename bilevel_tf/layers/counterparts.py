"""Which layer of this library stands for which layer of Keras."""

from collections.abc import Callable

import keras

HYPER: dict[type[keras.Layer], type[keras.Layer]] = {}
VARIATIONAL: dict[type[keras.Layer], type[keras.Layer]] = {}


def counterpart_of(
    plain_class: type[keras.Layer],
    table: dict[type[keras.Layer], type[keras.Layer]] = HYPER,
) -> Callable:
    """Decorate a layer class that `from_keras` puts in the place of one of Keras.

    Args:
        plain_class: The Keras class, of which the decorated class takes the config.
        table: `HYPER`, or `VARIATIONAL` for layers that a prior asks for. Defaults to
            `HYPER`.

    Returns:
        A decorator of a class.
    """

    def decorate(special_class):
        table[plain_class] = special_class
        return special_class

    return decorate


def plain_class(layer_class: type[keras.Layer]) -> type[keras.Layer]:
    """The Keras class in whose place a class stands; the class itself if it has none.

    Args:
        layer_class: Class of a layer.
    """
    pairs = [*HYPER.items(), *VARIATIONAL.items()]
    return {special: plain for plain, special in pairs}.get(layer_class, layer_class)
