"""`keras.models.clone_model` of a `BilevelModel`: the copy gets a space of its own."""

from typing import Any

import keras

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.space import HyperparameterSpace


class Clonable(_keras.CopiedByKeras):
    """Mixin for a `BilevelModel`, which `clone_model` calls without its space.

    The space is handed on with the symbolic outputs that `clone_model` makes.
    """

    def graph_rebuilt(self, outputs: Any) -> None:
        """Remember, on symbolic outputs, the space of the model that made them."""
        space = getattr(self, "hyperparameters", None)
        for tensor in keras.tree.flatten(outputs):
            if isinstance(tensor, keras.KerasTensor):
                tensor.space_of_original = space


def copy_space(outputs: Any) -> HyperparameterSpace | None:
    """Return a new space like that of the model which `outputs` are cloned from.

    Args:
        outputs: What a `BilevelModel` is made with.

    Returns:
        The space at its initial values, or `None` if these are no outputs of a clone.
    """
    for tensor in keras.tree.flatten(outputs):
        space = getattr(tensor, "space_of_original", None)
        if space is not None:
            return HyperparameterSpace.from_config(space.get_config())
    return None
