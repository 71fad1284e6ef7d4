"""The data given to `fit`, made ready for inner and outer steps."""

import contextlib
import threading
import types
from typing import Any

import keras

from bilevel_tf.training.data import example_weights
from bilevel_tf.training.data.data_checks import (
    check_arrays,
    check_targets_alike,
    count_examples,
    is_arrays,
)
from bilevel_tf.training.data.fit_arguments import (
    check_fit_arguments,
    choose_batch_size,
)
from bilevel_tf.training.data.py_datasets import (
    InTurn,
    read_owned,
    runs_in_one_thread,
)
from bilevel_tf.training.data.recent_batches import RecentBatches
from bilevel_tf.training.data.validation_data import check_validation, split_validation
from bilevel_tf.training.data.validation_feed import OuterFeed


def prepare_data(
    model: keras.Model, data: tuple, validation_data: Any, arguments: dict[str, Any]
) -> tuple[tuple, Any, OuterFeed]:
    """Check the data, split them, and make what outer steps draw from.

    Args:
        model: The compiled `BilevelModel`.
        data: x, y and sample weights, as given to `fit`.
        validation_data: As given to `fit`.
        arguments: The other arguments of `fit` by name.

    Returns:
        The training data and the validation data for Keras, and the feed of outer
        steps.
    """
    check_fit_arguments(model.method, arguments)
    share = arguments.get("validation_split") or model.objective.validation_split
    data, validation_data = _split(model, data, validation_data, share)
    steps = arguments.get("validation_steps")
    validation_data = check_validation(model, validation_data, steps)
    if isinstance(validation_data, tuple) and is_arrays(data):
        check_targets_alike(model, data[1], validation_data[1])
    data = model.objective.prepare(model.network, *data)
    data, validation_data = _read_in_turn(data, validation_data)
    feed = _make_feed(model, data, validation_data, arguments)
    if (feed.recent is not None) != model.returns_batches:
        # The traced step returns its batches or does not: trace anew.
        model.returns_batches, model.train_function = feed.recent is not None, None
    return data, validation_data, feed


def _split(model, data, validation_data, share):
    """Apply the split, and number the examples if their weights are tuned."""
    x, y, weight = data
    reference = example_weights.find_reference(weight)
    if reference is not model.example_weights:
        # The traced step has the old way of finding weights built in: trace anew.
        model.example_weights, model.train_function = reference, None
    if reference is not None:
        reference.bind(model.hyperparameters)
        weight = None
    data = x, y, weight
    if is_arrays(data) and keras.tree.flatten(x):
        check_arrays(model, data, "")
    data, validation_data = split_validation(data, validation_data, share)
    if reference is not None:
        data = example_weights.number_examples(reference, data, model)
    return data, validation_data


def _read_in_turn(data, validation_data):
    """Let the training data wait while outer steps read validation data, and reverse.

    A user who asks for parallel workers has code that may run in parallel. All batches
    are copies of the user's.
    """
    lock = threading.Lock()
    x, *rest = data
    if isinstance(x, types.GeneratorType):
        x = read_owned(x)
    return (_put_in_turn(x, lock), *rest), _put_in_turn(validation_data, lock)


def _put_in_turn(data, lock):
    if not isinstance(data, keras.utils.PyDataset):
        return data
    return InTurn(data, lock if runs_in_one_thread(data) else contextlib.nullcontext())


def _make_feed(model, data, validation_data, arguments):
    """Make the feed of outer steps from checked data."""
    method = model.method
    judged = validation_data if model.objective.judged_on == "validation" else None
    arrays = is_arrays(data)
    draws = judged is None or (method.inner_batches and not method.fixed_batches)
    recent = None
    if draws and not arrays:
        recent = RecentBatches(max(method.inner_batches, 1), method.valid_steps)
    batch_size, steps = arguments.get("batch_size"), arguments.get("validation_steps")
    sizes = (
        _size(judged, arguments.get("validation_batch_size") or batch_size, steps),
        _size(data, batch_size, arguments.get("steps_per_epoch")),
    )
    training = data if arrays else data[0]
    return OuterFeed(judged, training, sizes, method, steps, recent, model.progress)


def _size(data, batch_size, steps):
    """Return the size of the batches that data are cut into, if they are arrays."""
    if not isinstance(data, tuple) or not is_arrays(data):
        return 0
    return choose_batch_size(count_examples(data), batch_size, steps)
