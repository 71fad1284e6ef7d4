"""How one weight of a layer moves with the hyperparameters.

A response gives Δw = Θδ for one weight, where δ is the perturbation of the
unconstrained hyperparameters. It never forms Δw per example: it gives what a pass
needs, the change of the outputs, and inner products.
"""

import keras
import tensorflow as tf

from bilevel_tf.layers.linear_map import LinearMap


class Response(keras.layers.Layer):
    """Δw = Θδ of one weight; subclasses say how Θ is represented.

    Its own weights are not trainable in Keras's sense: the model's optimizer leaves
    them to the method that fits them.

    Args:
        linear_map: How the layer applies the weight.
        size: h, the number of unconstrained hyperparameters.
        **kwargs: `name` and `dtype` of `keras.layers.Layer`.
    """

    def __init__(self, linear_map: LinearMap, size: int, **kwargs):
        super().__init__(**kwargs)
        self.linear_map = linear_map
        self.size = size

    def build_for(self, layer: keras.Layer, fan_in: int) -> None:
        """Create Θ.

        Args:
            layer: A built layer, of which the weight and its initializer are read.
            fan_in: How many inputs a unit of the layer's kernel has; for offsets.
        """
        raise NotImplementedError

    def term(self, inputs: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        """The change of the outputs that Δw_i makes, for every example i.

        Args:
            inputs: What the layer applies the weight to, `[batch, ...]`.
            delta: δ, `[batch, h]` or `[1, h]`.

        Returns:
            A tensor that broadcasts to the outputs, in the dtype of δ.
        """
        raise NotImplementedError

    def shift(self, delta: tf.Tensor) -> tf.Tensor:
        """Δw itself, shaped as the weight, for one δ of shape `[1, h]`."""
        raise NotImplementedError

    def inner(self, direction: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        """⟨direction, Δw_i⟩ for every example i, `[batch]`.

        Args:
            direction: A tensor shaped as the weight.
            delta: δ, `[batch, h]`.
        """
        raise NotImplementedError

    def squared_norm(self, delta: tf.Tensor) -> tf.Tensor:
        """‖Δw_i‖² for every example i, `[batch]`; δ is `[batch, h]`."""
        raise NotImplementedError

    def _add(self, name, shape, initializer):
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, trainable=False
        )


def read(variable: keras.Variable, like: tf.Tensor) -> tf.Tensor:
    """The value of a variable in the dtype of another tensor."""
    return tf.cast(tf.convert_to_tensor(variable), like.dtype)
