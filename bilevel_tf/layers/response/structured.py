"""The rank-one response of the Δ-STN paper."""

import math

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.layers.response.response import BIAS, KERNEL, Response


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
