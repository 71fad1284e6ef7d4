"""Responses: how a layer's weights move with the hyperparameters.

A response gives Δw = Θδ for the kernel and bias of one layer, where δ is the
perturbation of the unconstrained hyperparameters. It never forms Δw per example:
it gives what a pass needs, the change of the layer's output, and inner products.
"""

import math

import keras
import numpy as np
import tensorflow as tf

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


class StructuredResponse(Response):
    """Rank-one structure per unit, Eq. 3.14 of the Δ-STN paper.

    With response kernel R, response bias b_R, and factors U, V of shape `[h, units]`:
    ΔW = (δU) ⊙ R on every unit's column, Δb = (δV) ⊙ b_R. b_R starts uniformly in
    ±1/√fan_in, and U and V at zero, so that a new response is none.

    While U is zero only the component of a unit's response along its column of R is
    learned. So R had better start in a likely direction: along the kernel, where a
    response rescales the unit's weights.

    Args:
        size: h, the number of unconstrained hyperparameters.
        initializer: "kernel", R starts as a copy of the layer's kernel, or "random",
            as another draw of the kernel's initializer, as in the paper. Where that
            gives zeros, from which nothing is learned, R starts Glorot uniform.
    """

    def __init__(self, size, initializer="kernel", **kwargs):
        super().__init__(size, **kwargs)
        self.initializer = initializer

    def build_for(self, layer):
        kernel, units = layer.kernel, layer.kernel.shape[-1]
        bound = 1.0 / math.sqrt(max(1, math.prod(kernel.shape[:-1])))
        self.kernel = self._add("kernel", kernel.shape, "zeros", layer.dtype)
        self.kernel.assign(self._direction(layer))
        self.kernel_factor = self._add(
            "kernel_factor", (self.size, units), "zeros", layer.dtype
        )
        if layer.use_bias:
            uniform = keras.initializers.RandomUniform(-bound, bound)
            self.bias = self._add("bias", (units,), uniform, layer.dtype)
            self.bias_factor = self._add(
                "bias_factor", (self.size, units), "zeros", layer.dtype
            )
        self.built = True

    def _direction(self, layer):
        """Where R starts."""
        start = layer.kernel
        if self.initializer == "random":
            draw = _reseeded(layer.kernel_initializer)
            start = draw(layer.kernel.shape, dtype=layer.kernel.dtype)
        if not np.any(keras.ops.convert_to_numpy(start)):
            start = keras.initializers.GlorotUniform()(start.shape, dtype=start.dtype)
        return start

    def output_term(self, layer, inputs, delta):
        rank = inputs.shape.rank
        factor = layer.per_example(self._factor(KERNEL, delta), rank)
        term = factor * layer.apply_kernel(inputs, self.kernel)
        if layer.use_bias:
            term += layer.per_example(self._factor(BIAS, delta) * self.bias, rank)
        return term

    def shift(self, which, delta):
        return self._factor(which, delta)[0] * getattr(self, which)

    def inner(self, which, direction, delta):
        columns = _sum_to_units(direction * getattr(self, which))
        return tf.linalg.matvec(self._factor(which, delta), columns)

    def squared_norm(self, which, delta):
        columns = _sum_to_units(tf.square(getattr(self, which)))
        return tf.linalg.matvec(tf.square(self._factor(which, delta)), columns)

    def _factor(self, which, delta):
        return tf.matmul(delta, getattr(self, f"{which}_factor"))


class FullResponse(Response):
    """The full linear Θ of Lorraine & Duvenaud (2018): h copies of every weight.

    Starts as N(0, 0.01²), as theirs. For small models: memory and time grow with h.
    """

    def build_for(self, layer):
        normal = keras.initializers.RandomNormal(stddev=0.01)
        shape = (self.size, *layer.kernel.shape)
        self.kernel = self._add("kernel", shape, normal, layer.dtype)
        if layer.use_bias:
            shape = (self.size, *layer.bias.shape)
            self.bias = self._add("bias", shape, normal, layer.dtype)
        self.built = True

    def output_term(self, layer, inputs, delta):
        rank = inputs.shape.rank
        kernels = tf.unstack(tf.convert_to_tensor(self.kernel))
        term = tf.add_n(
            [
                layer.per_example(delta[:, k : k + 1], rank)
                * layer.apply_kernel(inputs, kernel)
                for k, kernel in enumerate(kernels)
            ]
        )
        if layer.use_bias:
            term += layer.per_example(tf.matmul(delta, self.bias), rank)
        return term

    def shift(self, which, delta):
        return tf.tensordot(delta[0], getattr(self, which), 1)

    def inner(self, which, direction, delta):
        rows = self._rows(which)
        products = tf.linalg.matvec(rows, tf.reshape(direction, [-1]))
        return tf.linalg.matvec(delta, products)

    def squared_norm(self, which, delta):
        rows = self._rows(which)
        gram = tf.matmul(rows, rows, transpose_b=True)
        return tf.reduce_sum(tf.matmul(delta, gram) * delta, -1)

    def _rows(self, which):
        return tf.reshape(getattr(self, which), [self.size, -1])


def _sum_to_units(tensor):
    return tf.reduce_sum(tensor, list(range(tensor.shape.rank - 1)))


def _reseeded(initializer):
    """The initializer with another seed: one instance always draws the same."""
    # A seed generator goes on by itself; a plain function has no seed to change.
    seed = getattr(initializer, "seed", None)
    drawing_on = isinstance(seed, keras.random.SeedGenerator)
    if drawing_on or not hasattr(initializer, "get_config"):
        return initializer
    config = initializer.get_config()
    if config.get("seed") is not None and isinstance(config["seed"], int):
        config["seed"] += 1
    return type(initializer).from_config(config)
