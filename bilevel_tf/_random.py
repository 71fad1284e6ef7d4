"""Random numbers: Keras's, by an algorithm that is named.

`keras.random` lets TensorFlow choose the algorithm. On the CPU that is Philox in either
case, but XLA compiles an unnamed one to code some thirty times slower than a named one.
Without XLA the numbers are those that `keras.random` draws from the same generator,
except for `quick_normal`.
"""

import math

import numpy as np
import tensorflow as tf


def uniform(shape, dtype, generator):
    """Uniform on [0, 1) from a `keras.random.SeedGenerator`."""
    return tf.random.stateless_uniform(
        shape, _next_seed(generator), dtype=dtype, alg="philox"
    )


def normal(shape, dtype, generator):
    """Standard normal from a `keras.random.SeedGenerator`."""
    return tf.random.stateless_normal(
        shape, _next_seed(generator), dtype=dtype, alg="philox"
    )


def quick_normal(shape, dtype, generator):
    """Standard normal, by the inverse of the distribution function.

    Other numbers than those of `normal`, in three quarters of the time, for layers that
    draw as many numbers as they have outputs.
    """
    # Half precision has too few numbers near the ends of the interval.
    precise = tf.as_dtype(dtype) if dtype == "float64" else tf.float32
    least = np.nextafter(precise.as_numpy_dtype(-1), precise.as_numpy_dtype(0))
    draw = tf.random.stateless_uniform(
        shape, _next_seed(generator), least, 1, precise, alg="philox"
    )
    return tf.cast(math.sqrt(2.0) * tf.math.erfinv(draw), dtype)


def signs(shape, dtype, generator):
    """−1 or 1, equally likely, from a `keras.random.SeedGenerator`."""
    bits = tf.random.stateless_uniform(
        shape, _next_seed(generator), None, None, tf.int32, alg="philox"
    )
    return tf.cast(2 * tf.bitwise.bitwise_and(bits, 1) - 1, dtype)


def _next_seed(generator):
    # Keras keeps 64 bits where TensorFlow takes 32, and folds them like this.
    return tf.cast(tf.math.floormod(generator.next(), tf.int32.max - 1), tf.int32)
