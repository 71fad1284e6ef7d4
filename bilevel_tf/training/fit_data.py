"""The data given to `fit`, made ready for inner and outer steps."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.training import example_weights
from bilevel_tf.training.validation_feed import (
    check_validation,
    outer_feed,
    split_validation,
)


def prepare_data(
    model: keras.Model,
    data: tuple,
    validation_data: Any,
    validation_split: float,
    batch_size: int,
) -> tuple[tuple, Any, tf.data.Dataset]:
    """Check the data, split them, and make batches for the outer steps.

    Args:
        model: The compiled `BilevelModel`.
        data: x, y and sample weights, as given to `fit`.
        validation_data: As given to `fit`.
        validation_split: As given to `fit`; if 0, the objective's counts.
        batch_size: Size of the batches that arrays are cut into.

    Returns:
        The training data and the validation data for Keras, and the `tf.data.Dataset`
        that outer steps draw from.
    """
    validation_split = validation_split or model.objective.validation_split
    data, validation_data = _split(model, data, validation_data, validation_split)
    data = model.objective.prepare(model.network, *data)
    on_validation = model.objective.judged_on == "validation"
    feed = outer_feed(
        check_validation(validation_data) if on_validation else data,
        data,
        batch_size,
        # Outer batches go on from the point at which an interrupted fit stopped.
        model.progress.outer_steps,
        model.method,
    )
    return data, validation_data, feed


def _split(model, data, validation_data, validation_split):
    """Apply the split, and number the examples if their weights are tuned."""
    x, y, weight = data
    reference = example_weights.find_reference(weight)
    if reference is not model.example_weights:
        # The traced step has the old way of finding weights built in: trace anew.
        model.example_weights, model.train_function = reference, None
    if reference is None:
        return split_validation(data, validation_data, validation_split)
    reference.bind(model.hyperparameters)
    data, validation_data = split_validation(
        (x, y, None), validation_data, validation_split
    )
    return example_weights.number_examples(reference, data, model), validation_data
