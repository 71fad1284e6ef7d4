"""Random numbers from Keras's seed generators, by the algorithm Philox.

`keras.random` lets TensorFlow choose the algorithm. On the CPU it chooses Philox too,
but XLA compiles a draw whose algorithm is not named to code that is some thirty times
slower. Without XLA, `uniform` and `normal` draw the same numbers as `keras.random` from
the same generator; `quick_normal` draws others.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf import _replicas

Shape: TypeAlias = tf.Tensor | Sequence[int | tf.Tensor]


def uniform(
    shape: Shape, dtype: str, generator: keras.random.SeedGenerator
) -> tf.Tensor:
    """Draw numbers that are uniform on [0, 1)."""
    return tf.random.stateless_uniform(
        shape, _next_seed(generator), dtype=dtype, alg="philox"
    )


def normal(
    shape: Shape, dtype: str, generator: keras.random.SeedGenerator
) -> tf.Tensor:
    """Draw numbers that are standard normal."""
    return tf.random.stateless_normal(
        shape, _next_seed(generator), dtype=dtype, alg="philox"
    )


def quick_normal(
    shape: Shape, dtype: str, generator: keras.random.SeedGenerator
) -> tf.Tensor:
    """Draw numbers that are standard normal, by the inverse distribution function.

    It takes three quarters of the time of `normal`, which matters to a layer that draws
    as many numbers as it has outputs. The numbers differ from those of `normal`.
    """
    # Half precision has too few numbers near the ends of the interval.
    precise = tf.as_dtype(dtype) if dtype == "float64" else tf.float32
    least = np.nextafter(precise.as_numpy_dtype(-1), precise.as_numpy_dtype(0))
    draw = tf.random.stateless_uniform(
        shape, _next_seed(generator), least, 1, precise, alg="philox"
    )
    return tf.cast(math.sqrt(2.0) * tf.math.erfinv(draw), dtype)


def signs(shape: Shape, dtype: str, generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Draw −1 or 1, each with probability ½."""
    bits = tf.random.stateless_uniform(
        shape, _next_seed(generator), None, None, tf.int32, alg="philox"
    )
    return tf.cast(2 * tf.bitwise.bitwise_and(bits, 1) - 1, dtype)


def normal_rows(
    rows: int | tf.Tensor, size: int, dtype: str, generator: keras.random.SeedGenerator
) -> tf.Tensor:
    """Draw standard normal numbers, `[rows, size]`, a row for each example of a batch.

    Under several replicas each draws the rows of the whole batch and takes those of its
    own examples, so that all have the numbers that one device would draw.
    """
    first, total = _replicas.find_rows(rows)
    seed = _next_shared_seed(generator)
    drawn = tf.random.stateless_normal((total, size), seed, dtype=dtype, alg="philox")
    return drawn if total is rows else drawn[first : first + rows]


def _next_seed(generator):
    return _replicas.make_seed_own(_next_shared_seed(generator))


def _next_shared_seed(generator):
    # Keras folds its 64 bits into the 32 that TensorFlow takes in this way.
    return tf.cast(tf.math.floormod(generator.next(), tf.int32.max - 1), tf.int32)
