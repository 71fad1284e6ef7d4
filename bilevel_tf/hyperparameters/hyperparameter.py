"""A reference to a hyperparameter, which layers and others hold."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import show
from bilevel_tf.hyperparameters.naming import list_names
from bilevel_tf.hyperparameters.not_a_number import NotANumber
from bilevel_tf.hyperparameters.pass_in_force import current_pass
from bilevel_tf.scales.scale import Scale

if TYPE_CHECKING:
    from bilevel_tf.hyperparameters.space import HyperparameterSpace


@keras.saving.register_keras_serializable("bilevel_tf")
class Hyperparameter(NotANumber):
    """A reference to one hyperparameter of a space; `space["name"]` makes it.

    Layers, regularizers, losses and optimizers hold references and ask them for the
    value in force. The config of a reference has the name and the scale, not the space:
    a `BilevelModel` binds the references that it finds to its own space. A reference
    that is not bound stands for the initial value. It is no number: arithmetic with it,
    comparisons and conversions raise a `TypeError` that says what to use.

    Args:
        name: Name of the hyperparameter in its space.
        scale: Its `Scale`.
        space: The `HyperparameterSpace`, or `None` for a reference that is not bound
            yet. Defaults to `None`.

    Example:

    >>> hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 1.0, initial=0.25))
    >>> hp["rate"]
    <Hyperparameter rate, initial 0.25>
    >>> float(hp["rate"].value())
    0.25
    """

    def __init__(
        self,
        name: str,
        scale: Scale,
        space: "HyperparameterSpace | None" = None,
    ):
        if isinstance(scale, dict):
            scale = keras.saving.deserialize_keras_object(scale)
        self.name = name
        self.scale = scale
        self.space = space

    @property
    def initial(self) -> np.ndarray:
        """Initial value, on the constrained scale."""
        return self.scale.initial

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value: `()` for a scalar."""
        return self.scale.shape

    def bind(self, space: "HyperparameterSpace") -> None:
        """Make this a reference into `space`.

        Raises:
            ValueError: If it is bound to another space, or `space` has no
                hyperparameter of this name.
        """
        if self.space is not None and self.space is not space:
            raise ValueError(
                f"Hyperparameter '{self.name}' belongs to another HyperparameterSpace "
                "than the model's. Make all layers of a model from one space. "
                f"Received: '{self.name}' of {_describe(self.space)}, in a model of "
                f"{_describe(space)}"
            )
        space.check_names([self.name])
        self.space = space

    def broadcasts_to(self, shape: tuple[int, ...]) -> bool:
        """Whether the value has this shape, or broadcasts to it."""
        shape = tuple(shape)
        try:
            return np.broadcast_shapes(self.shape, shape) == shape
        except ValueError:
            return False

    def value(self) -> tf.Tensor:
        """The value in force, differentiable in λ if the scale is.

        Returns:
            A tensor of shape `shape`; during a perturbed pass `[batch, *shape]`, one
            value per example.
        """
        present = current_pass()
        if present.values is not None:
            return present.values[self.name]
        if self.space is None:
            return tf.constant(self.initial, keras.config.floatx())
        if present.current is not None:
            return present.current[self.name]
        return self.space.current_value(self.name)

    @property
    def is_perturbed(self) -> bool:
        """Whether `value` has one value per example at the moment."""
        return current_pass().values is not None

    def get_config(self) -> dict[str, Any]:
        """Name and scale; a model that is assembled binds the space."""
        scale = keras.saving.serialize_keras_object(self.scale)
        return {"name": self.name, "scale": scale}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Hyperparameter":
        """The inverse of `get_config`."""
        return cls(**config)

    def __repr__(self):
        return f"<Hyperparameter {self.name}, initial {show(self.initial)}>"


def _describe(space):
    """A space in words. Spaces of several files may have the same name."""
    names = list_names(space.names, 6)
    return f"'{space.name}' (object {id(space):#x}, with {names})"
