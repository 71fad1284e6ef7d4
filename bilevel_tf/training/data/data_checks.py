"""Checks of the data given to `fit`, before anything is traced."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def is_arrays(data: Any) -> bool:
    """Whether all parts of the data are arrays, or left out."""
    leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    return all(hasattr(leaf, "shape") for leaf in leaves)


def count_examples(data: Any) -> int:
    """Return the number of examples in arrays."""
    return int(keras.tree.flatten(data)[0].shape[0])


def check_arrays(model: keras.Model, data: tuple, name: str) -> None:
    """Check that arrays fit each other and the model.

    Args:
        model: The compiled model.
        data: x, y and sample weights; arrays in any structure, or `None`.
        name: Name of the argument of `fit` that they come from, or "".

    Raises:
        ValueError: If they do not.
    """
    x, y, _ = data
    where = f"`{name}`" if name else "The training data"
    if y is None and any(loss is not None for loss in model.network.losses):
        raise ValueError(
            f"{where} must have targets, as the model is compiled with a loss: give "
            f"{f'`{name}=(x, y)`' if name else '`y`'}. Received: y=None"
        )
    _check_lengths(data, where)
    check_shapes(model, shapes_of(x), shapes_of(y), where)
    for part, arrays in (("x", x), ("y", y)):
        for array in keras.tree.flatten(arrays):
            _check_dtype(model, array, part, where)


def shapes_of(arrays: Any) -> Any:
    """Return the shapes of arrays or `tf.TensorSpec`s, in their structure."""
    return keras.tree.map_structure(
        lambda a: None if a is None else tuple(a.shape), arrays
    )


def _check_lengths(data, where):
    lengths: dict[int, str] = {}
    for part, arrays in zip(("x", "y", "sample_weight"), data, strict=True):
        for array in keras.tree.flatten(arrays):
            if array is None:
                continue
            if len(array.shape) == 0:
                raise ValueError(
                    f"{where} must be arrays with one row per example. Received: "
                    f"`{part}` that is a single number"
                )
            lengths.setdefault(int(array.shape[0]), part)
    if len(lengths) > 1:
        shown = ", ".join(f"{n} in `{part}`" for n, part in lengths.items())
        raise ValueError(
            f"{where} must have the same number of examples in all parts. "
            f"Received: {shown}"
        )


def _check_dtype(model, array, part, where):
    """Refuse objects, and strings if no input of the model takes strings."""
    if array is None:
        return
    kind = getattr(getattr(array, "dtype", None), "kind", "f")
    texts = any(t.dtype == "string" for t in keras.tree.flatten(model.inputs))
    if (kind == "O" and not texts) or (kind in "US" and not texts):
        raise ValueError(
            f"{where} must be numbers. Received: `{part}` of dtype {array.dtype}"
        )


def check_shapes(model: keras.Model, x: Any, y: Any, where: str) -> None:
    """Raise a `ValueError` if the shape of an input is not the model's.

    Args:
        model: The model.
        x: Shapes of the inputs, with the batch axis, in the structure of the inputs.
        y: Shapes of the targets, or `None`, to see whether they are exchanged.
        where: Where the data come from, for the message.
    """
    inputs = model.inputs
    shapes = _pair(inputs, x)
    if shapes is None:
        return
    if len(shapes) != len(inputs):
        names = ", ".join(f"'{tensor.name}'" for tensor in inputs)
        raise ValueError(
            f"{where} must have one array for every input of the model: {names}. "
            f"Received: {len(shapes)} arrays in `x`"
        )
    for tensor, shape in zip(inputs, shapes, strict=True):
        if _fits(shape, tensor.shape):
            continue
        hint = ""
        if _is_shape(y) and _fits(y, tensor.shape):
            hint = " `x` and `y` seem to be exchanged."
        elif _fits((None, *shape), tensor.shape):
            hint = " The batch axis seems to be missing: use `.batch(32)`."
        raise ValueError(
            f"{where} does not fit the model: `x` must have the shape "
            f"{tuple(tensor.shape)} of input '{tensor.name}'.{hint} "
            f"Received: shape {shape}"
        )


def _pair(inputs, x):
    """List the shapes in the order of the inputs, or return `None` if it is unclear."""
    if _is_shape(x):
        return [x]
    if isinstance(x, dict):
        found = [x.get(tensor.name) for tensor in inputs]
        return found if all(_is_shape(shape) for shape in found) else None
    if isinstance(x, (list, tuple)) and all(_is_shape(shape) for shape in x):
        return list(x)
    return None


def _is_shape(value):
    return isinstance(value, tuple) and all(
        dim is None or isinstance(dim, int) for dim in value
    )


def _fits(shape, wanted):
    """Whether Keras takes an array of this shape; it adds or drops a last axis of 1."""
    if len(shape) == len(wanted) + 1 and shape[-1] in (1, None):
        shape = shape[:-1]
    elif len(shape) == len(wanted) - 1 and wanted[-1] == 1:
        shape = (*shape, 1)
    if len(shape) != len(wanted):
        return False
    pairs = zip(shape, wanted, strict=True)
    return all(a is None or b is None or a == b for a, b in pairs)


def check_targets_alike(model: keras.Model, training: Any, validation: Any) -> None:
    """Raise a `ValueError` if targets of training and validation have other shapes.

    Args:
        model: The model.
        training: Training targets, arrays in any structure.
        validation: Validation targets.
    """
    ours, theirs = keras.tree.flatten(training), keras.tree.flatten(validation)
    if len(ours) != len(theirs):
        raise ValueError(
            "`validation_data` must have as many targets as the training data. "
            f"Received: {len(theirs)} arrays in `y`, and {len(ours)} for training"
        )
    if any(None in tensor.shape[1:] for tensor in model.outputs):
        # Axes whose length the model leaves open may differ.
        return
    for one, other in zip(ours, theirs, strict=True):
        if one is None or other is None:
            continue
        if _drop_ones(one.shape[1:]) != _drop_ones(other.shape[1:]):
            raise ValueError(
                "`validation_data` must have targets of the same shape as the training "
                f"data. Received: `y` of shape {tuple(other.shape)}, and "
                f"{tuple(one.shape)} for training"
            )


def _drop_ones(shape):
    return [dim for dim in shape if dim != 1]


def check_finite(model: keras.Model, data: tuple) -> None:
    """Raise a `ValueError` if NaN in validation data make the loss NaN.

    A model may be made for NaN, in inputs or targets. Therefore the first example that
    has one is tried.

    Args:
        model: The compiled model.
        data: x, y and sample weights of the validation data, as arrays.
    """
    for part, arrays in zip(("x", "y", "sample_weight"), data, strict=True):
        for array in keras.tree.flatten(arrays):
            row = _find_not_finite(array)
            if row is None or _is_finite_loss(model, data, row):
                continue
            raise ValueError(
                f"`validation_data` has NaN or infinite values in `{part}`, first in "
                f"example {row}, and the loss of this example is not finite. Received: "
                f"`{part}` of shape {tuple(array.shape)}"
            )


def _find_not_finite(array):
    """Return the index of the first example with NaN or infinity, or `None`."""
    array = None if array is None else np.asarray(array)
    if array is None or array.dtype.kind != "f" or array.size == 0:
        return None
    # The sum needs no memory; it may overflow.
    if np.isfinite(np.sum(array)):
        return None
    finite = np.isfinite(array.reshape(len(array), -1)).all(-1)
    return None if finite.all() else int(np.argmin(finite))


def _is_finite_loss(model, data, row):
    x, y, weight = keras.tree.map_structure(
        lambda a: None if a is None else tf.convert_to_tensor(a[row : row + 1]), data
    )
    loss = model.compute_loss(x, y, model(x, training=False), weight, training=False)
    return bool(tf.math.is_finite(loss))
