"""Passes through a network that has one set of weights per fold."""

import keras
import tensorflow as tf

from bilevel_tf.layers.linear_map import vectorizes


def in_folds(network, function, elements, signature):
    """Call a function for all folds at once.

    TensorFlow cannot vectorise a convolution over kernels in a way that XLA could
    differentiate twice. A network that has a convolution takes one fold after the
    other, in a loop of the graph.

    Args:
        network: The `Network` that the function calls.
        function: Function of `elements` without their first axis.
        elements: Structure of tensors with a first axis of k.
        signature: Structure of the dtypes that the function returns.

    Returns:
        What it returns, stacked along a new first axis.
    """
    if all(vectorizes(layer) for layer in network.layers):
        return tf.vectorized_map(function, elements)
    return tf.map_fn(function, elements, fn_output_signature=signature)


def fold_losses(network, weights, hyperparameters, batch, count):
    """Training loss of every fold's model on the examples of the other folds, `[k]`.

    It is the mean over these of what the compiled loss gives them, times their sample
    weights, and the penalties of the model: what Keras trains a model by that never
    saw the fold. Where a batch has no such example it is 0, penalties and all: training
    without the fold would have no such batch.

    Args:
        network: The `Network`.
        weights: List of tensors `[k, *shape]`.
        hyperparameters: List of tensors.
        batch: x and the fold of every example, y, and sample weights.
        count: k.
    """
    (x, folds), y, sample_weight = batch
    dtype = keras.config.floatx()

    def loss(arguments):
        weights, fold = arguments
        kept = tf.cast(tf.not_equal(folds, fold), dtype)
        used = tf.reduce_sum(kept)
        # Keras divides by all examples of the batch.
        kept *= tf.math.divide_no_nan(tf.cast(tf.size(folds), dtype), used)
        data = x, y, _weighted(sample_weight, kept)
        value = network.loss(weights, hyperparameters, data, training=True)
        return value * tf.cast(used > 0, value.dtype)

    folds_in_turn = tf.range(count, dtype=folds.dtype)
    return in_folds(network, loss, (list(weights), folds_in_turn), dtype)


def held_out_predictions(network, weights, hyperparameters, batch):
    """The outputs for every example of the model that was not trained on it.

    Structured as the model's; arguments as of `fold_losses`.
    """
    (x, folds), *rest = batch

    def predict(weights):
        data = x, *rest
        found = network.predict(weights, hyperparameters, data, training=False)
        return keras.tree.flatten(found)

    dtypes = [output.dtype for output in keras.tree.flatten(network.outputs)]
    predictions = in_folds(network, predict, list(weights), dtypes)
    examples = tf.range(tf.size(folds), dtype=folds.dtype)
    places = tf.stack([folds, examples], 1)
    held_out = [tf.gather_nd(p, places) for p in predictions]
    return keras.tree.pack_sequence_as(network.outputs, held_out)


def _weighted(sample_weight, factor):
    """Sample weights as given to `fit`, each example's times a factor, `[n]`."""

    def product(weight):
        if weight is None:
            return factor
        shape = [-1] + [1] * (weight.shape.rank - 1)
        return tf.cast(weight, factor.dtype) * tf.reshape(factor, shape)

    return keras.tree.map_structure(product, sample_weight)
