"""What `fit` is given, made ready for inner and outer steps."""

from bilevel_tf.training import example_weights
from bilevel_tf.training.validation_feed import (
    check_validation,
    outer_feed,
    split_validation,
)


def prepared(model, data, validation_data, validation_split, batch_size):
    """Check the data and feed the outer steps.

    Args:
        model: The compiled `BilevelModel`.
        data: x, y and sample weights.
        validation_data, validation_split: As given to `fit`.
        batch_size: Size of the batches of arrays.

    Returns:
        The training data and the validation data for Keras, and the `tf.data.Dataset`
        that outer steps draw from.
    """
    data, validation_data = _split(model, data, validation_data, validation_split)
    data = model.objective.prepare(model.network, *data)
    on_validation = model.objective.judged_on == "validation"
    feed = outer_feed(
        check_validation(validation_data) if on_validation else data,
        data,
        batch_size,
        # Outer batches go on where an interrupted fit left off.
        model.progress.outer_steps,
        model.method,
    )
    return data, validation_data, feed


def _split(model, data, validation_data, validation_split):
    """Apply the split, and number the examples where their weights are tuned."""
    x, y, weight = data
    reference = example_weights.reference_in(weight)
    if reference is not model.example_weights:
        # The traced step has the way in which it finds the weights.
        model.example_weights, model.train_function = reference, None
    if reference is None:
        return split_validation(data, validation_data, validation_split)
    reference.bind(model.hyperparameters)
    data, validation_data = split_validation(
        (x, y, None), validation_data, validation_split
    )
    return example_weights.numbered(reference, data, model), validation_data
