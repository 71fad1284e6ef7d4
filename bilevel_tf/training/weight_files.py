"""Files of weights: written whole or not at all, and named if they are not whole."""

import os
import pathlib
from typing import Any

import h5py


class WeightFiles:
    """Mixin for a Keras model: `save_weights` and `load_weights` on a local disk.

    `BackupAndRestore` and `ModelCheckpoint` call these methods.
    """

    def save_weights(
        self, filepath: Any, overwrite: bool = True, **kwargs: Any
    ) -> None:
        """Write the weights and all else that training changes.

        The file is complete before it takes its name, so that a process that is killed
        in the meantime leaves the former file.

        Args:
            filepath: File to write, a string or path that ends in ".weights.h5".
            overwrite: Whether to replace a file without asking. Defaults to `True`.
            **kwargs: `max_shard_size`, which newer releases of Keras take: the size in
                GB of the files into which the weights are cut.

        Example:

        >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
        >>> inputs = keras.Input((3,))
        >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
        >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        >>> model.save_weights("model.weights.h5")
        >>> hp.assign({"l2": 0.5})
        >>> model.load_weights("model.weights.h5")
        >>> round(hp.values()["l2"], 3)
        0.01
        """
        # A link stays a link.
        path = pathlib.Path(os.path.realpath(filepath))
        whole = not kwargs and path.name.endswith(".weights.h5")
        if not (overwrite and whole and path.parent.is_dir()):
            super().save_weights(filepath, overwrite=overwrite, **kwargs)
            return
        unfinished = path.with_name(f"unfinished_{os.getpid()}_{path.name}")
        try:
            super().save_weights(unfinished, overwrite=True)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Read what `save_weights` wrote.

        Args:
            filepath: File to read, a string or path.
            *args: As in `keras.Model.load_weights`: `skip_mismatch`, whether to leave
                out layers that do not fit.
            **kwargs: The same by name.

        Raises:
            OSError: If the file cannot be read, as when it was not written to its end.
        """
        try:
            super().load_weights(filepath, *args, **kwargs)
        except (OSError, KeyError, RuntimeError) as error:
            if isinstance(error, FileNotFoundError) or not _is_unreadable(filepath):
                raise
            # `BackupAndRestore` looks for its former file upon an `OSError`.
            raise OSError(
                f"'{filepath}' is not a whole file of weights: whatever wrote it may "
                "have been killed. Load an earlier file. If it is a backup, delete its "
                "folder to begin anew; `BackupAndRestore(double_checkpoint=True)` "
                f"keeps the former backup as well. Received: {error}"
            ) from error


def _is_unreadable(filepath):
    """Whether an HDF5 file cannot be read to its end."""
    if not str(filepath).endswith(".h5"):
        return False
    try:
        with h5py.File(filepath, "r") as file:
            file.visititems(_read)
    except (OSError, KeyError, RuntimeError):
        return True
    return False


def _read(name, item):
    if isinstance(item, h5py.Dataset):
        item[()]
