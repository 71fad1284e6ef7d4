"""Write a model or its weights to a file, whole or not at all."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

from bilevel_tf import _keras


def save(filepath: Any, overwrite: bool, zipped: bool | None, write: Callable) -> None:
    """Let Keras write a model; a file that is there stays until the new one is whole.

    Args:
        filepath: What `save` was given.
        overwrite: Whether a file of this name is replaced without asking.
        zipped: As in `keras.Model.save`.
        write: Function of a path that writes the model there.

    Raises:
        ValueError: If the name is not one of a `.keras` file, or `zipped=False` a
            folder.
    """
    path = str(filepath)
    if path.endswith((".h5", ".hdf5")):
        _refuse_hdf5(path)
    elsewhere = "://" in path or zipped is False
    if not elsewhere and not path.endswith(".keras"):
        raise ValueError(
            "`filepath` must end in '.keras'. For a SavedModel, which TensorFlow "
            "Serving takes, use model.export(filepath); for a folder give "
            f"zipped=False. Received: filepath='{path}'"
        )
    if elsewhere or (os.path.exists(path) and not overwrite):
        # Keras asks whether the file may be replaced.
        write(filepath)
        return
    write_whole(filepath, write)


def save_weights(filepath: Any, overwrite: bool, cut: bool, write: Callable) -> None:
    """Let Keras write weights; a file that is there stays until the new one is whole.

    Args:
        filepath: What `save_weights` was given.
        overwrite: Whether a file of this name is replaced without asking.
        cut: Whether Keras cuts the weights into several files.
        write: Function of a path that writes the weights there.
    """
    path = pathlib.Path(filepath)
    whole = path.name.endswith(".weights.h5") and path.parent.is_dir()
    if overwrite and whole and not cut:
        write_whole(path, write)
    else:
        # Keras asks whether the file may be replaced, and refuses other names.
        write(filepath)


def write_whole(filepath: Any, write: Callable) -> None:
    """Write a file beside the one of that name, and then put it in its place.

    A process that is killed in the meantime leaves the former file.

    Args:
        filepath: The file.
        write: Function of a path that writes the file there.
    """
    # A link stays a link.
    target = pathlib.Path(filepath).resolve()
    unfinished = target.with_name(f"unfinished_{os.getpid()}_{target.name}")
    try:
        write(unfinished)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def check_format() -> None:
    """Raise a `ValueError` if Keras is about to write or read a `.h5` file."""
    if _keras.is_saving_to_hdf5():
        _refuse_hdf5("a .h5 file")


def _refuse_hdf5(path):
    raise ValueError(
        "A BilevelModel cannot be saved in the old HDF5 format, which has no place for "
        "the state of training. Save it with model.save('model.keras'), its weights "
        f"with model.save_weights('model.weights.h5'). Received: filepath='{path}'"
    )
