"""Passes through a network that has one set of weights per fold."""

import keras
import tensorflow as tf

from bilevel_tf.layers.linear_map import vectorizes


def in_folds(model, function, elements, signature):
    """Call a function for all folds at once.

    TensorFlow cannot vectorise a convolution over kernels in a way that XLA could
    differentiate twice. A network that has a convolution takes one fold after the
    other, in a loop of the graph.

    Args:
        model: The model that the function calls.
        function: Function of `elements` without their first axis.
        elements: Structure of tensors with a first axis of k.
        signature: Structure of the dtypes that the function returns.

    Returns:
        What it returns, stacked along a new first axis.
    """
    layers = model._flatten_layers(include_self=False)
    if all(vectorizes(layer) for layer in layers):
        return tf.vectorized_map(function, elements)
    return tf.map_fn(function, elements, fn_output_signature=signature)


def fold_losses(network, weights, hyperparameters, batch, count):
    """Training loss of every fold's model on the examples of the other folds, `[k]`.

    It is the mean over these examples of the compiled loss times their sample weights,
    plus the penalties of the model: the loss by which Keras would train a model that
    never saw the fold. If a batch has no such example, the loss is 0, the penalties
    included, because training without the fold would not have this batch.

    Args:
        network: The model as a `StatelessModel`.
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
        data = x, y, _weight_examples(sample_weight, kept)
        value = network.loss(weights, hyperparameters, data, training=True)
        return value * tf.cast(used > 0, value.dtype)

    folds_in_turn = tf.range(count, dtype=folds.dtype)
    return in_folds(network.model, loss, (list(weights), folds_in_turn), dtype)


def held_out_predictions(network, weights, hyperparameters, batch):
    """The outputs for every example, of the model that was not trained on it.

    Args:
        network: The model as a `StatelessModel`.
        weights: List of tensors `[k, *shape]`.
        hyperparameters: List of tensors.
        batch: x and the fold of every example, y, and sample weights.

    Returns:
        Outputs in the model's structure.
    """
    (x, folds), *rest = batch
    model = network.model

    def predict(weights):
        data = x, *rest
        found = network.predict(weights, hyperparameters, data, training=False)
        return keras.tree.flatten(found)

    dtypes = [output.dtype for output in model.outputs]
    predictions = in_folds(model, predict, list(weights), dtypes)
    examples = tf.range(tf.size(folds), dtype=folds.dtype)
    places = tf.stack([folds, examples], 1)
    held_out = [tf.gather_nd(p, places) for p in predictions]
    return keras.tree.pack_sequence_as(model._outputs_struct, held_out)


def _weight_examples(sample_weight, factor):
    """Multiply the sample weights given to `fit` by a factor per example, `[n]`."""

    def product(weight):
        if weight is None:
            return factor
        shape = [-1] + [1] * (weight.shape.rank - 1)
        return tf.cast(weight, factor.dtype) * tf.reshape(factor, shape)

    return keras.tree.map_structure(product, sample_weight)
