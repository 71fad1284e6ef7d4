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
        elements: Structure of tensors whose first axis has length k.
        signature: Structure of the dtypes that the function returns.

    Returns:
        The results of the function, stacked along a new first axis.
    """
    if all(vectorizes(layer) for layer in network.layers):
        return tf.vectorized_map(function, elements)
    return tf.map_fn(function, elements, fn_output_signature=signature)


def fold_losses(network, weights, hyperparameters, batch, count):
    """Compute the training loss of every fold's model on the other folds' examples.

    It is the mean over these examples of the compiled loss times their sample weights,
    plus the penalties of the model, as in a training that never saw the fold. If a
    batch has no such example, the loss is 0, without penalties, because a training
    without the fold would not have that batch.

    Args:
        network: The `Network`.
        weights: List of tensors `[k, *shape]`.
        hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
        batch: A pair of x and the fold of every example; y; and sample weights.
        count: k, the number of folds.

    Returns:
        A tensor `[k]`.
    """
    (x, folds), y, sample_weight = batch
    dtype = keras.config.floatx()

    def loss(arguments):
        weights, fold = arguments
        kept = tf.cast(tf.not_equal(folds, fold), dtype)
        used = tf.reduce_sum(kept)
        # Keras divides by the number of all examples of the batch.
        kept *= tf.math.divide_no_nan(tf.cast(tf.size(folds), dtype), used)
        data = x, y, _weight_examples(sample_weight, kept)
        value = network.loss(weights, hyperparameters, data, training=True)
        return value * tf.cast(used > 0, value.dtype)

    folds_in_turn = tf.range(count, dtype=folds.dtype)
    return in_folds(network, loss, (list(weights), folds_in_turn), dtype)


def held_out_predictions(network, weights, hyperparameters, batch):
    """Predict every example by the model that was not trained on it.

    Args:
        network: The `Network`.
        weights: List of tensors `[k, *shape]`.
        hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
        batch: A pair of x and the fold of every example; y; and sample weights.

    Returns:
        Tensors structured as the outputs of the model, `[batch, ...]` each.
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


def _weight_examples(sample_weight, factor):
    """Multiply the sample weights given to `fit` by a factor per example, `[n]`."""

    def product(weight):
        if weight is None:
            return factor
        shape = [-1] + [1] * (weight.shape.rank - 1)
        return tf.cast(weight, factor.dtype) * tf.reshape(factor, shape)

    return keras.tree.map_structure(product, sample_weight)
