"""Weights that are set or read from a file as a whole or not at all."""

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from bilevel_tf.training.reasons import shorten

_OPTIMIZERS = (
    "optimizer", "response_optimizer", "hyper_optimizer", "objective_optimizer",
)  # fmt: skip


@contextlib.contextmanager
def unchanged_on_failure(model: keras.Model) -> Iterator[None]:
    """Give a `BilevelModel` its state back if the body of `with` fails."""
    parts = [model, *(getattr(model, name, None) for name in _OPTIMIZERS)]
    parts = [part.variables for part in parts if part is not None]
    variables = [v for part in [*parts, model.metrics_variables] for v in part]
    values = [np.array(variable.value) for variable in variables]
    progress = dict(vars(model.progress))
    try:
        yield
    except BaseException:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        vars(model.progress).update(progress)
        raise


def load_weights(model: keras.Model, filepath: Any, load: Callable) -> None:
    """Load weights by Keras; a failure names the file and changes nothing.

    Args:
        model: A `BilevelModel`.
        filepath: The file.
        load: Function without arguments that loads.

    Raises:
        ValueError: If the file belongs to another model.
        OSError: If the file cannot be read, or (FileNotFoundError) is not there.
    """
    start = (
        f"Model '{model.name}' cannot take the weights of the file '{filepath}', and "
        "stays as it was. "
    )
    try:
        with unchanged_on_failure(model):
            load()
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file '{filepath}'.") from None
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        # `BackupAndRestore` looks for its former file upon an `OSError`.
        raise OSError(
            f"{start}It is damaged, cut short (whatever wrote it may have been "
            "killed), or not what `save_weights` or `save` wrote. Load an "
            "earlier file. If it is a backup, delete its folder to begin anew; "
            "`BackupAndRestore(double_checkpoint=True)` keeps the former backup as "
            f"well. Error: {shorten(error)}"
        ) from error
    except Exception as error:
        raise ValueError(start + _explain(error)) from error


def check_weights(model: keras.Model, weights: Any) -> None:
    """Check that `set_weights` can set a list of arrays.

    Args:
        model: A model.
        weights: What `set_weights` was given.

    Raises:
        TypeError: If it is not a list or tuple.
        ValueError: If there are more or fewer arrays than weights, or one has another
            shape or is not numeric.
    """
    variables = model.weights
    if not isinstance(weights, (list, tuple)):
        raise TypeError(
            "`weights` must be a list of arrays, such as get_weights() returns. "
            f"Received: weights of type {type(weights).__name__}"
        )
    if len(weights) != len(variables):
        raise ValueError(
            f"`weights` must have one array for each of the {len(variables)} weights "
            f"of model '{model.name}', those of responses and of the hyperparameters "
            f"among them. Received: {len(weights)} arrays"
        )
    for place, (variable, value) in enumerate(zip(variables, weights, strict=True)):
        array = np.asarray(value)
        if array.shape != tuple(variable.shape) or array.dtype.kind in "OSU":
            raise ValueError(
                f"`weights[{place}]` must be an array of numbers of shape "
                f"{tuple(variable.shape)}, as '{variable.path}' has. Received: an "
                f"array of shape {array.shape} and dtype {array.dtype}"
            )


def _explain(error):
    """The reason of a failure, which Keras puts between two sentences of its own."""
    parts = str(error).split("\n\n")
    if len(parts) > 2 and "could not be loaded" in parts[0]:
        return shorten(ValueError(parts[1]), 500)
    return shorten(error, 500)
