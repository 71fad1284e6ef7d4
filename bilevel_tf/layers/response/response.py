"""Responses: how a layer's weights move with the hyperparameters.

A response gives Δw = Θδ for the kernel and bias of one layer, where δ is the
perturbation of the unconstrained hyperparameters. It never forms Δw per example:
it gives what a pass needs, the change of the layer's output, and inner products.
"""

import keras

KERNEL, BIAS = "kernel", "bias"


class Response(keras.layers.Layer):
    """Δw = Θδ of one layer; subclasses say how Θ is represented.

    Args:
        size: h, the number of unconstrained hyperparameters.

    Its weights are not trainable in Keras's sense: the model's optimizer leaves them
    to the method that fits them.
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def build_for(self, layer):
        """Create the weights for a built `layer` with `kernel` and `bias`."""
        raise NotImplementedError

    def output_term(self, layer, inputs, delta):
        """Change of the layer's output, before its activation, per example.

        Args:
            layer: The layer, with `apply_kernel` and `per_example`.
            inputs: Its inputs, `[batch, ...]`.
            delta: δ, `[batch, h]` or `[1, h]`.
        """
        raise NotImplementedError

    def shift(self, which, delta):
        """Δw itself for one δ of shape `[1, h]`; `which` is "kernel" or "bias"."""
        raise NotImplementedError

    def inner(self, which, direction, delta):
        """⟨direction, Δw_i⟩ for every example i, `[batch]`."""
        raise NotImplementedError

    def squared_norm(self, which, delta):
        """‖Δw_i‖² for every example i, `[batch]`."""
        raise NotImplementedError

    def _add(self, name, shape, initializer, dtype):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            trainable=False,
            dtype=dtype,
        )
