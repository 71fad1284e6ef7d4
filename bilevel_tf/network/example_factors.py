"""One factor per example, in the shapes that the losses of the outputs need.

Keras multiplies weights with the values of a loss. Of an output `[batch, time, units]`
these are `[batch, time]`, and weights `[batch]` would go along the axis of time.
"""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.network.output_parts import split_by_output, split_targets


def weigh_examples(
    network: Any, y: Any, outputs: Any, sample_weight: Any, factors: Any
) -> Any:
    """Multiply the weights of a batch by one factor per example.

    Args:
        network: The `Network`.
        y: Targets of the batch.
        outputs: Outputs of the network for the batch.
        sample_weight: Weights of the batch, as Keras takes them: `None`, `[batch]`, or
            `[batch, time]` by position; or a structure with one of these per output.
        factors: Factors `[batch]`, or a list with one such tensor per flat output.

    Returns:
        Weights structured as the outputs, each of a shape that goes with the loss.

    Raises:
        ValueError: If a loss returns a scalar and not one value per example.
    """
    names, losses = network.output_names, network.losses
    flat = keras.tree.flatten(outputs)
    if not isinstance(factors, list):
        factors = [factors] * len(flat)
    parts = zip(
        losses,
        split_targets(y, outputs, names, losses),
        flat,
        split_by_output(sample_weight, outputs, names),
        factors,
        strict=True,
    )
    return keras.tree.pack_sequence_as(outputs, [_weigh(*part) for part in parts])


def _weigh(loss, targets, output, weight, factors):
    """Multiply the weights of one output."""
    shape = _find_loss_shape(loss, targets, output)
    rank = shape.rank
    if weight is not None:
        weight = tf.cast(weight, factors.dtype)
        if weight.shape.rank == 1 and rank == 2 and shape[1] == 1:
            weight = weight[:, None]
        rank = max(rank, weight.shape.rank)
    factors = tf.reshape(factors, [-1] + [1] * (rank - 1))
    return factors if weight is None else weight * factors


def _find_loss_shape(loss, targets, output):
    """Find the static shape of the values of a loss, `[batch, ...]`."""
    if loss is None or targets is None:
        return tf.TensorShape([None])
    loss = keras.losses.get(keras.tree.flatten(loss)[0])
    known = isinstance(loss, keras.losses.Loss)
    dtype = loss.dtype if known else keras.config.floatx()
    pair = (keras.ops.convert_to_tensor(t, dtype) for t in (targets, output))
    # The graph drops the values, of which nothing but the shape is used.
    shape = (loss.call if known else loss)(*pair).shape
    if shape.rank == 0:
        name = type(loss).__name__ if known else loss.__name__
        raise ValueError(
            "To weigh single examples, `loss` must return one value per example, of "
            "shape [batch, ...]: take the mean over the last axis alone. Received: "
            f"{name}, which returns a scalar"
        )
    return shape
