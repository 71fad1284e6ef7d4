"""The data of a search: arrays, checked, and what a file says of them."""

import zlib
from typing import Any

import keras
import numpy as np

from bilevel_tf._arguments import show
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.training.bilevel_model import BilevelModel
from bilevel_tf.training.data.data_checks import check_arrays, check_targets_alike
from bilevel_tf.training.data.validation_data import check_validation


def check_training(model: BilevelModel, x: Any, y: Any, weight: Any) -> tuple:
    """Return checked training data as x, y and sample weights.

    Args:
        model: The compiled model.
        x, y, weight: Arrays, or structures of them.

    Raises:
        TypeError: If they are no arrays, or `weight` is a hyperparameter.
        ValueError: If they fit neither each other nor the model.
    """
    if isinstance(weight, Hyperparameter):
        raise TypeError(
            "A search cannot vary the weights of examples, of which there are as many "
            "as examples: `sample_weight` must be numbers. Tune them by a method, such "
            f"as bilevel_tf.methods.T1T2(). Received: sample_weight='{weight.name}'"
        )
    for name, part in (("x", x), ("y", y), ("sample_weight", weight)):
        for leaf in keras.tree.flatten(part):
            if leaf is not None and not hasattr(leaf, "__array__"):
                raise TypeError(
                    "A search needs arrays, of which it knows the number of training "
                    f"steps before it trains: `{name}` must be an array, or a "
                    f"structure of arrays. Received: {name} of type "
                    f"{type(leaf).__name__}"
                )
    data = _to_numpy((x, y, weight))
    if not keras.tree.flatten(data[0]) or any(
        leaf.ndim and not len(leaf) for leaf in keras.tree.flatten(data[0])
    ):
        raise ValueError(f"`x` must have examples. Received: x={show(x)}")
    check_arrays(model, data, "")
    return data


def check_held_out(
    model: BilevelModel, data: Any, argument: str, training: tuple
) -> tuple:
    """Return checked validation or test data as x, y and sample weights.

    Args:
        model: The compiled model.
        data: (x, y) or (x, y, sample_weight) of arrays.
        argument: Name of the argument.
        training: The training data.

    Raises:
        TypeError: If they are no such tuple.
        ValueError: If they do not fit the model, or have NaN that the loss shows.
    """
    if not isinstance(data, (tuple, list)):
        raise TypeError(
            f"`{argument}` must be (x, y) or (x, y, sample_weight) of arrays. "
            f"Received: {argument} of type {type(data).__name__}"
        )
    if argument == "validation_data":
        checked = check_validation(model, data, None)
    else:
        checked = (*data, None, None, None)[:3]
        check_arrays(model, checked, argument)
    if not isinstance(checked, tuple):
        raise TypeError(
            f"`{argument}` must be arrays. Received: {type(checked).__name__}"
        )
    check_targets_alike(model, training[1], checked[1])
    return _to_numpy(checked)


def describe_data(*parts: Any) -> list[str]:
    """Return a short text for every array, which changes with the data."""
    arrays = [a for a in keras.tree.flatten(list(parts)) if a is not None]
    return [f"{a.dtype}{list(a.shape)} {_sum_up(a):08x}" for a in arrays]


def _sum_up(array):
    # Objects, such as strings, are held by their addresses.
    array = array.astype("U") if array.dtype.kind == "O" else array
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def _to_numpy(data):
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else np.asarray(leaf), data
    )
