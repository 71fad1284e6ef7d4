"""What a layer holds to refer to a hyperparameter."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.hyperparameters.pass_in_force import current_pass


@keras.saving.register_keras_serializable("bilevel_tf")
class Hyperparameter:
    """A reference to one hyperparameter of a space; `space["name"]` makes it.

    Layers and regularizers hold it and ask it for the value in force. Its config has
    the name and the scale, not the space: a `BilevelModel` binds it again. As long as
    it is not bound it stands for the initial value.

    Args:
        name: The hyperparameter's name in its space.
        scale: Its scale.
        space: The `HyperparameterSpace`, or `None` while there is none.
    """

    def __init__(self, name, scale, space=None):
        if isinstance(scale, dict):
            scale = keras.saving.deserialize_keras_object(scale)
        self.name = name
        self.scale = scale
        self.space = space

    @property
    def initial(self):
        """Initial value on the constrained scale."""
        return self.scale.initial

    def bind(self, space):
        """Make this a reference into `space`.

        Raises:
            ValueError: If it belongs to another space, or `space` has no
                hyperparameter of this name.
        """
        if self.space is not None and self.space is not space:
            raise ValueError(
                f"Hyperparameter '{self.name}' belongs to another "
                f"HyperparameterSpace ('{self.space.name}') than the model's "
                f"('{space.name}'). Make all layers of a model from one space."
            )
        space.check_names([self.name])
        self.space = space

    def broadcasts_to(self, shape):
        """Whether one value fits a weight of that shape, or broadcasts to it."""
        shape = tuple(shape)
        try:
            return np.broadcast_shapes(self.scale.shape, shape) == shape
        except ValueError:
            return False

    def value(self):
        """The value in force, differentiable in λ where it is the current one.

        Returns:
            A tensor of shape `scale.shape`; during a perturbed pass
            `[batch, *scale.shape]`, one value per example.
        """
        values = current_pass().values
        if values is not None:
            return values[self.name]
        if self.space is None:
            return tf.constant(self.initial, keras.config.floatx())
        return self.space.current()[self.name]

    @property
    def is_perturbed(self):
        """Whether `value` now has one value per example."""
        return current_pass().values is not None

    def get_config(self):
        """Name and scale; the space is bound when a model is assembled."""
        scale = keras.saving.serialize_keras_object(self.scale)
        return {"name": self.name, "scale": scale}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)

    def __repr__(self):
        return f"<Hyperparameter {self.name}, initial {self.initial.tolist()}>"
