"""Validation data, as `fit` takes them."""

import types
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.training.data.data_checks import (
    check_arrays,
    check_finite,
    check_shapes,
    count_examples,
    is_arrays,
    shapes_of,
)
from bilevel_tf.training.data.py_datasets import KeptBatches, first_batches

_KINDS = (tf.data.Dataset, keras.utils.PyDataset, types.GeneratorType)


def split_validation(
    training_data: tuple, validation_data: Any, validation_split: float
) -> tuple[tuple, Any]:
    """Apply `validation_split`, unless there are validation data.

    Args:
        training_data: x, y and sample weights.
        validation_data: As given to `fit`.
        validation_split: Share of the training arrays, from their end, or 0.

    Returns:
        Training data and validation data.

    Raises:
        ValueError: If the data are not arrays, or too few to be split.
    """
    if validation_data is not None or not validation_split:
        return training_data, validation_data
    if not is_arrays(training_data):
        raise ValueError(
            "`validation_split` works on arrays only. Pass `validation_data`. "
            f"Received: validation_split={validation_split}, and other data"
        )
    count = count_examples(training_data)
    first = int(count * (1.0 - validation_split))
    if first in (0, count):
        raise ValueError(
            "`validation_split` must leave examples to train on and to validate with. "
            f"Received: validation_split={validation_split}, and {count} examples, of "
            f"which {first} are left for training"
        )

    def cut(part):
        return keras.tree.map_structure(
            lambda array: None if array is None else array[part], training_data
        )

    return cut(slice(None, first)), cut(slice(first, None))


def check_validation(
    model: keras.Model, validation_data: Any, steps: int | None
) -> Any:
    """Return checked validation data, ready to be read more than once.

    Args:
        model: The compiled `BilevelModel`.
        validation_data: As given to `fit`.
        steps: `validation_steps` of `fit`.

    Returns:
        A tuple of x, y and sample weights, a `tf.data.Dataset`, a `PyDataset`, or
        `None` if there are none and the objective needs none.

    Raises:
        ValueError: If there are none and the objective needs them, they are empty or
            have no end, or they fit neither each other nor the model.
        TypeError: If they are of a kind that `fit` does not take.
    """
    if validation_data is None:
        _check_not_needed(model)
        return None
    data = _unpack(validation_data)
    if isinstance(data, types.GeneratorType):
        data = KeptBatches(data, steps)
    if _is_empty(data):
        raise ValueError(
            "`validation_data` is empty: it has no examples. Received: "
            f"{type(validation_data).__name__}"
        )
    if isinstance(data, tuple):
        check_arrays(model, data, "validation_data")
        check_finite(model, data)
        return data
    if steps is None and _is_infinite(data):
        raise ValueError(
            "`validation_data` never ends, and so would the evaluation after an epoch. "
            "Pass `validation_steps`, the number of batches to use. Received: "
            "validation_steps=None"
        )
    _check_batches(model, data)
    return data


def _check_not_needed(model):
    if model.objective.judged_on == "validation":
        raise ValueError(
            "A BilevelModel tunes its hyperparameters on validation data: pass "
            "`validation_data=(x_valid, y_valid)` or `validation_split=0.15` to fit, "
            "or compile it with an objective that is judged on the training data, or, "
            "if another tool calls fit, with "
            "bilevel_tf.objectives.ValidationLoss(validation_split=0.15). "
            "Received: validation_data=None"
        )


def _unpack(validation_data):
    """Return validation data as x, y and weights, three in number, or as a data set.

    Raises:
        ValueError: If there are no validation data, or the tuple has too many parts.
        TypeError: If they are of a kind that `fit` does not take.
    """
    if isinstance(validation_data, _KINDS):
        return validation_data
    if not isinstance(validation_data, (tuple, list)):
        raise TypeError(
            "`validation_data` must be a tuple of arrays, (x, y) or (x, y, "
            "sample_weight), a tf.data.Dataset, a keras.utils.PyDataset or a "
            f"generator. Received: {type(validation_data).__name__}"
        )
    parts = tuple(validation_data)
    if len(parts) > 3:
        raise ValueError(
            "`validation_data` must be (x, y) or (x, y, sample_weight). "
            f"Received: a {type(validation_data).__name__} of {len(parts)} parts"
        )
    parts = (*parts, None, None, None)[:3]
    if isinstance(parts[0], _KINDS) and parts[1] is None and parts[2] is None:
        return parts[0]
    if not is_arrays(parts):
        bad = [a for a in keras.tree.flatten(parts) if not hasattr(a, "shape")]
        kind = next(type(a).__name__ for a in bad if a is not None)
        raise TypeError(
            "`validation_data` must be (x, y) or (x, y, sample_weight) of arrays. Make "
            "arrays of other things, for example by `np.asarray`. "
            f"Received: a value of type {kind}"
        )
    return parts


def _is_empty(data):
    if isinstance(data, tf.data.Dataset):
        count = int(data.cardinality())
        if count == tf.data.UNKNOWN_CARDINALITY:
            return next(iter(data), None) is None
        return count == 0
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches == 0
    arrays = [array for array in keras.tree.flatten(data) if array is not None]
    return not arrays or any(tuple(array.shape[:1]) == (0,) for array in arrays)


def _is_infinite(data):
    if isinstance(data, tf.data.Dataset):
        return int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    return data.num_batches is None


def _check_batches(model, data):
    """Check the batches of a data set, as far as they can be seen."""
    if isinstance(data, tf.data.Dataset):
        # Shapes alone: reading a batch may be slow, and fill the data set's caches.
        batch = _split_parts(data.element_spec)
        if all(_is_dense(spec) for spec in keras.tree.flatten(batch)):
            x, y = (shapes_of(part) for part in batch[:2])
            check_shapes(model, x, y, "`validation_data`")
        return
    kept = isinstance(data, KeptBatches)
    for batch in first_batches(data, data.num_batches if kept else 1):
        batch = _split_parts(batch)
        check_arrays(model, batch, "validation_data")
        check_finite(model, batch)


def _split_parts(batch):
    parts = batch if isinstance(batch, tuple) else (batch,)
    return (*parts, None, None, None)[:3]


def _is_dense(spec):
    dense = isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None
    return spec is None or dense
