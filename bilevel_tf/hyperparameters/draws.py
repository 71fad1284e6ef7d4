"""Random numbers: Keras's, by an algorithm that is named.

`keras.random` lets TensorFlow choose the algorithm. On the CPU that is Philox in either
case, but XLA compiles an unnamed one to code some thirty times slower than a named one.
Without XLA the numbers are those that `keras.random` draws from the same generator.
"""

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


def signs(shape, dtype, generator):
    """−1 or 1, equally likely, from a `keras.random.SeedGenerator`."""
    bits = tf.random.stateless_uniform(
        shape, _next_seed(generator), None, None, tf.int32, alg="philox"
    )
    return tf.cast(2 * tf.bitwise.bitwise_and(bits, 1) - 1, dtype)


def _next_seed(generator):
    # Keras keeps 64 bits where TensorFlow takes 32, and folds them like this.
    return tf.cast(tf.math.floormod(generator.next(), tf.int32.max - 1), tf.int32)
