"""Conditions with one output."""

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from tests.cross.condition import Condition, dense, squared_error, squares

L2 = bt.L2


def normal(seed, *shape):
    """Normal numbers."""
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


# A network of two layers, on which most conditions build


def layers(hp):
    """A hidden layer and an output layer, with a tuned penalty each."""
    hidden = bt.HyperDense(2, "tanh", kernel_regularizer=L2(hp["a"]), name="hidden")
    return hidden, bt.HyperDense(1, kernel_regularizer=L2(hp["b"]), name="out")


def build_plain(hp, more=lambda x: x):
    inputs = keras.Input((2,))
    hidden, out = layers(hp)
    return inputs, out(hidden(inputs))


def plain_outputs(w, x, constants, training):
    kernel, bias, out_kernel, out_bias = w
    return [dense(tf.tanh(dense(x, kernel, bias)), out_kernel, out_bias)]


def plain_losses(outputs, batch):
    return squared_error(outputs[0], batch[1])


def plain_penalty(w, a, b):
    return a * squares(w[0]) + b * squares(w[2])


def plain_batch(seed):
    return normal(seed, 4, 2), normal(seed + 100, 4, 1), None


PLAIN = {
    "build": build_plain,
    "outputs": plain_outputs,
    "losses": plain_losses,
    "penalty": plain_penalty,
    "batch": plain_batch,
}

# Masks


def build_masked(hp):
    inputs = keras.Input((3, 2))
    hidden, out = layers(hp)
    return inputs, out(hidden(keras.layers.Masking()(inputs)))


def masked_batch(seed):
    x, y = normal(seed, 4, 3, 2).numpy(), normal(seed + 100, 4, 3, 1)
    x[0, 1:] = x[1, 2:] = 0.0
    return tf.constant(x), y, None


def masked_losses(outputs, batch):
    x, y, _ = batch
    kept = tf.cast(tf.reduce_any(x != 0.0, -1), y.dtype)
    errors = tf.reduce_mean((outputs[0] - y) ** 2, -1)
    count = tf.cast(tf.shape(y)[0], y.dtype)
    return count * tf.reduce_sum(errors * kept, 1) / tf.reduce_sum(kept)


# Embeddings: index 0 is not used, index 3 twice by one example


def build_embedding(hp, regularizer=None):
    inputs = keras.Input((3,), dtype="int32")
    embedding = bt.layers.HyperEmbedding(4, 2, embeddings_regularizer=regularizer)
    mean = keras.layers.GlobalAveragePooling1D()(embedding(inputs))
    bias = None if regularizer else L2(hp["a"])
    out = bt.HyperDense(1, kernel_regularizer=L2(hp["b"]), bias_regularizer=bias)
    return inputs, out(mean)


def build_penalized_embedding(hp):
    return build_embedding(hp, L2(hp["a"]))


def embedding_outputs(w, x, constants, training):
    table, kernel, bias = w
    mean = tf.reduce_mean(tf.gather(table, x, axis=1, batch_dims=1), 1)
    return [dense(mean, kernel, bias)]


def embedding_batch(seed):
    x = np.array([[3, 1, 3], [1, 2, 2], [2, 1, 3], [1, 1, 2]])
    return tf.constant(np.roll(x, seed, 0)), normal(seed, 4, 1), None


# Layers that are used twice, or not trained


def build_shared(hp):
    inputs = keras.Input((2,))
    hidden, out = layers(hp)
    return inputs, out(hidden(hidden(inputs)))


def shared_outputs(w, x, constants, training):
    kernel, bias, *out = w
    x = tf.tanh(dense(x, kernel, bias))
    return [dense(tf.tanh(dense(x, kernel, bias)), *out)]


def build_frozen(hp):
    inputs = keras.Input((2,))
    hidden, out = layers(hp)
    frozen = bt.HyperDense(2, "tanh", trainable=False, name="frozen")
    return inputs, out(frozen(hidden(inputs)))


def frozen_outputs(w, x, constants, training):
    kernel, bias, *out = w
    x = tf.tanh(dense(x, kernel, bias))
    frozen_kernel, frozen_bias = constants
    x = tf.tanh(x @ frozen_kernel + frozen_bias)
    return [dense(x, *out)]


def build_normalized(hp):
    inputs = keras.Input((2,))
    hidden, out = layers(hp)
    x = keras.layers.BatchNormalization(momentum=0.7, epsilon=0.1)(hidden(inputs))
    return inputs, out(x)


def normalized_outputs(w, x, constants, training):
    kernel, bias, gamma, beta, *out = w
    x = tf.tanh(dense(x, kernel, bias))
    mean, variance = constants
    if training:
        mean, variance = tf.nn.moments(x, [0])
    x = (x - mean) / tf.sqrt(variance + 0.1)
    return [dense(gamma * x + beta, *out)]


def normalized_penalty(w, a, b):
    return a * squares(w[0]) + b * squares(w[4])


# Sample weights


def weighted_batch(seed):
    x, y, _ = plain_batch(seed)
    return x, y, tf.constant(np.roll([0.0, 0.5, 1.0, 3.0], seed))


def weighted_losses(outputs, batch):
    return batch[2] * squared_error(outputs[0], batch[1])


CONDITIONS = [
    Condition(
        "mask",
        **{
            **PLAIN,
            "build": build_masked,
            "batch": masked_batch,
            "losses": masked_losses,
        },
    ),
    Condition(
        "embedding with a penalty",
        build_penalized_embedding,
        embedding_outputs,
        plain_losses,
        lambda w, a, b: a * squares(w[0]) + b * squares(w[1]),
        embedding_batch,
    ),
    Condition(
        "embedding without",
        build_embedding,
        embedding_outputs,
        plain_losses,
        lambda w, a, b: a * squares(w[2]) + b * squares(w[1]),
        embedding_batch,
    ),
    Condition(
        "shared layer", **{**PLAIN, "build": build_shared, "outputs": shared_outputs}
    ),
    Condition(
        "frozen layer", **{**PLAIN, "build": build_frozen, "outputs": frozen_outputs}
    ),
    Condition(
        "BatchNormalization",
        **{
            **PLAIN,
            "build": build_normalized,
            "outputs": normalized_outputs,
            "penalty": normalized_penalty,
        },
    ),
    # Products in half precision have 11 bits, of which some are lost in every layer and
    # again in every product with the Hessian.
    Condition("mixed precision", **PLAIN, policy="mixed_float16", rtol=3e-2),
    Condition(
        "sample weights",
        **{**PLAIN, "batch": weighted_batch, "losses": weighted_losses},
    ),
    Condition("ragged last batch", **PLAIN, ragged=True),
]
