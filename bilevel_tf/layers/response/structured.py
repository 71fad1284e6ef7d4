"""The rank-one response of the Δ-STN paper."""

import math

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.layers.linear_map import LinearMap, Offset
from bilevel_tf.layers.response.response import Response, read


class StructuredResponse(Response):
    """Rank-one structure per unit, Eq. 3.14 of the Δ-STN paper.

    With a direction R shaped as the weight and a factor U of one number per
    hyperparameter and unit, ΔW = (δU) ⊙ R, where a unit's number multiplies the unit's
    whole slice of R. For a bias the paper writes b_R for R and V for U. U starts at
    zero, so that a new response has no effect.

    While U is zero only the component of a unit's response along its slice of R is
    learned. So R should start in a likely direction: along the kernel, where a response
    rescales the unit's weights. R of a bias starts uniformly in ±1/√fan_in.

    Args:
        linear_map: How the layer applies the weight.
        size: h, the number of unconstrained hyperparameters.
        initializer: Where R of a kernel starts. "kernel": as a copy of the layer's
            kernel. "random": as another draw of the kernel's initializer, as in the
            paper. If that gives zeros, from which nothing is learned, R starts Glorot
            uniform. Defaults to "kernel".
        **kwargs: `name` and `dtype` of `keras.layers.Layer`.

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4.
    """

    def __init__(
        self, linear_map: LinearMap, size: int, initializer: str = "kernel", **kwargs
    ):
        super().__init__(linear_map, size, **kwargs)
        self.initializer = initializer

    def build_for(self, layer: keras.Layer, fan_in: int) -> None:
        weight = getattr(layer, self.linear_map.weight)
        units = self.linear_map.units(weight)
        if isinstance(self.linear_map, Offset):
            bound = 1.0 / math.sqrt(max(1, fan_in))
            start = keras.initializers.RandomUniform(-bound, bound)
            self.direction = self._add("direction", weight.shape, start)
        else:
            self.direction = self._add("direction", weight.shape, "zeros")
            self.direction.assign(self._start_of_direction(layer, weight))
        self.factor = self._add("factor", (self.size, *units), "zeros")
        self.built = True

    def _start_of_direction(self, layer, weight):
        start = weight
        initializer = getattr(layer, self.linear_map.initializer, None)
        if self.initializer == "random" and initializer is not None:
            draw = _reseed(initializer)
            start = draw(weight.shape, dtype=weight.dtype)
        if not np.any(keras.ops.convert_to_numpy(start)):
            start = keras.initializers.GlorotUniform()(start.shape, dtype=start.dtype)
        return start

    def term(self, inputs: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        direction = read(self.direction, delta)
        return self.linear_map.scaled(inputs, direction, self._unit_factors(delta))

    def shift(self, delta: tf.Tensor) -> tf.Tensor:
        direction = read(self.direction, delta)
        factors = self._unit_factors(delta)[0]
        return self.linear_map.over_weight(factors, direction.shape.rank) * direction

    def inner(self, direction: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
        products = direction * read(self.direction, delta)
        return self._weighted_sum(self._flat_factors(delta), products)

    def squared_norm(self, delta: tf.Tensor) -> tf.Tensor:
        squares = tf.square(read(self.direction, delta))
        return self._weighted_sum(tf.square(self._flat_factors(delta)), squares)

    def _weighted_sum(self, factors, entries):
        sums = self.linear_map.sum_over_units(entries)
        return tf.linalg.matvec(factors, tf.reshape(sums, [-1]))

    def _flat_factors(self, delta):
        """δU, `[batch, units]`."""
        factor = read(self.factor, delta)
        if factor.shape.rank != 2:
            factor = tf.reshape(factor, [self.size, -1])
        return tf.matmul(delta, factor)

    def _unit_factors(self, delta):
        """δU, `[batch, *units]`."""
        factors = self._flat_factors(delta)
        units = self.factor.shape[1:]
        return factors if len(units) == 1 else tf.reshape(factors, [-1, *units])


def _reseed(initializer):
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
