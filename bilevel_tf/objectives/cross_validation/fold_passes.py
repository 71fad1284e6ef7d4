"""Passes through a network that has one set of weights per fold."""

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.layers.linear_map import vectorizes
from bilevel_tf.network.example_factors import weigh_examples


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
        with network.at(weights, hyperparameters):
            outputs = network(x, training=True)
            flat = keras.tree.flatten(outputs)
            factors = [_divide_by_kept(kept, output) for output in flat]
            given = weigh_examples(network, y, outputs, sample_weight, factors)
            value = network.compute_loss(x, y, outputs, given, training=True)
        return value * tf.cast(tf.reduce_any(kept > 0), value.dtype)

    folds_in_turn = tf.range(count, dtype=folds.dtype)
    return in_folds(network, loss, (list(weights), folds_in_turn), dtype)


def _divide_by_kept(kept, output):
    """Scale factors `[n]` of 1 and 0, so that a mean is over those with 1 alone.

    Keras divides by the number of all examples of the batch or, of a masked output, by
    the number of all entries that the mask keeps.
    """
    mask = _keras.get_mask(output)
    entries = tf.ones_like(kept)
    if mask is not None:
        entries = tf.cast(mask, kept.dtype)
        entries = tf.reduce_sum(entries, list(range(1, mask.shape.rank)))
    used = tf.reduce_sum(entries * kept)
    return kept * tf.math.divide_no_nan(tf.reduce_sum(entries), used)


def held_out_predictions(network, weights, hyperparameters, batch):
    """Predict every example by the model that was not trained on it.

    Args:
        network: The `Network`.
        weights: List of tensors `[k, *shape]`.
        hyperparameters: A list of one tensor, the unconstrained λ `[h]`.
        batch: A pair of x and the fold of every example; y; and sample weights.

    Returns:
        Tensors structured as the outputs of the model, `[batch, ...]` each, with masks.
    """
    (x, folds), *rest = batch
    masked: list[bool] = []

    def predict(weights):
        data = x, *rest
        found = network.predict(weights, hyperparameters, data, training=False)
        flat = keras.tree.flatten(found)
        masks = [_keras.get_mask(output) for output in flat]
        masked[:] = [mask is not None for mask in masks]
        nothing = tf.zeros(tf.shape(folds), tf.bool)
        return flat, [nothing if mask is None else mask for mask in masks]

    dtypes = [output.dtype for output in keras.tree.flatten(network.outputs)]
    signature = dtypes, [tf.bool] * len(dtypes)
    found = in_folds(network, predict, list(weights), signature)
    examples = tf.range(tf.size(folds), dtype=folds.dtype)
    places = tf.stack([folds, examples], 1)
    predictions, masks = tf.nest.map_structure(
        lambda tensor: tf.gather_nd(tensor, places), found
    )
    for prediction, mask, has_mask in zip(predictions, masks, masked, strict=True):
        if has_mask:
            _keras.set_mask(prediction, mask)
    return keras.tree.pack_sequence_as(network.outputs, predictions)
