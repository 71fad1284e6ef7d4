"""A fit that was killed goes on as if it had not been, bit for bit."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from tests.training.models import assert_same_state, classifier, data

METHODS = {
    "DeltaSTN": lambda: bt.DeltaSTN(train_steps=2),
    # An epoch has 6 batches, so that rounds straddle its end.
    "Neumann": lambda: bt.Neumann(2, train_steps=4),
    "Unrolled": lambda: bt.Unrolled(3, train_steps=4),
    "Unrolled, fixed": lambda: bt.Unrolled(3, fixed_batches=True, train_steps=4),
}


class Batches(keras.utils.PyDataset):
    def __init__(self, arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-len(self.arrays[0]) // 8)

    def __getitem__(self, index):
        return tuple(array[8 * index : 8 * index + 8] for array in self.arrays)


def slices(arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(8)


KINDS = {"arrays": tuple, "dataset": slices, "py_dataset": Batches}


class Killed(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Stops at a moment of the second epoch, as a signal would."""

    def __init__(self, moment):
        super().__init__()
        self.moment, self.epoch = moment, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.stop("epoch begin")

    def on_train_batch_end(self, batch, logs=None):
        self.stop(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.stop("epoch end")

    def stop(self, moment):
        if self.epoch == 1 and moment == self.moment:
            raise Killed


def make(method):
    keras.utils.set_random_seed(0)
    if isinstance(method, bt.DeltaSTN):
        return classifier(method)
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((6,))
    x = bt.HyperDense(4, "tanh", kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    x = keras.layers.Dropout(0.2, seed=8)(x)
    model = bt.BilevelModel(inputs, keras.layers.Dense(3)(x), hyperparameters=hp)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    adam = keras.optimizers.Adam(0.02)
    model.compile("adam", loss, method=method, hyper_optimizer=adam)
    return model


def fit(model, kind, callbacks=(), epochs=3, **arguments):
    train, valid = KINDS[kind](data(44)), KINDS[kind](data(21, seed=1))
    if kind == "arrays":
        train, arguments["y"] = train
        arguments["batch_size"] = 8
    model.fit(
        train, validation_data=valid, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **arguments,
    )  # fmt: skip
    return model


@pytest.mark.parametrize(
    ("name", "kind", "moment"),
    [
        ("DeltaSTN", "arrays", 3),
        ("DeltaSTN", "dataset", "epoch begin"),
        ("DeltaSTN", "py_dataset", "epoch end"),
        ("Neumann", "arrays", "epoch end"),
        ("Neumann", "py_dataset", 3),
        ("Unrolled", "dataset", 3),
        ("Unrolled, fixed", "py_dataset", 3),
    ],
)
def test_a_killed_fit_goes_on(name, kind, moment, tmp_path):
    straight = fit(make(METHODS[name]()), kind)
    killed, resumed = make(METHODS[name]()), make(METHODS[name]())
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(Killed):
        fit(killed, kind, [backup, Kill(moment)])
    fit(resumed, kind, [keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    assert vars(resumed.progress) == vars(straight.progress)
    assert straight.progress.outer_steps > 3
    assert_same_state(straight, resumed)


@pytest.mark.parametrize("kind", ["arrays", "py_dataset"])
def test_a_backup_within_an_epoch(kind, tmp_path):
    """Keras begins the epoch again; outer steps go on from the backup."""
    killed, resumed = make(METHODS["Neumann"]()), make(METHODS["Neumann"]())
    options = {"backup_dir": tmp_path / "backup", "save_freq": 3}
    with pytest.raises(Killed):
        fit(killed, kind, [keras.callbacks.BackupAndRestore(**options), Kill(2)])
    assert killed.progress.inner_steps == 9
    fit(resumed, kind, [keras.callbacks.BackupAndRestore(**options)])
    fit(killed, kind, initial_epoch=1)
    assert vars(resumed.progress) == vars(killed.progress)
    assert_same_state(killed, resumed)


def test_a_checkpoint_and_initial_epoch(tmp_path):
    straight = fit(make(METHODS["Unrolled"]()), "dataset")
    path = tmp_path / "{epoch}.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    fit(make(METHODS["Unrolled"]()), "dataset", [checkpoint], epochs=2)
    keras.utils.set_random_seed(5)
    resumed = keras.models.load_model(tmp_path / "2.keras")
    fit(resumed, "dataset", initial_epoch=2)
    assert_same_state(straight, resumed)


def test_weights_loaded_in_mid_fit(tmp_path):
    """Outer batches follow the counts that the weights bring with them."""
    straight, other = make(METHODS["DeltaSTN"]()), make(METHODS["DeltaSTN"]())
    path = tmp_path / "start.weights.h5"
    straight.save_weights(path)

    class Rewind(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.load_weights(path)

    fit(straight, "arrays", epochs=1)
    fit(other, "arrays", [Rewind()], epochs=2)
    assert_same_state(straight, other)


# A file that was not written to its end


def backup_of(model, folder, **options):
    callback = keras.callbacks.BackupAndRestore(folder, **options)
    with pytest.raises(Killed):
        fit(model, "arrays", [callback, Kill(3)])
    return pathlib.Path(folder) / "latest.weights.h5"


def test_a_backup_that_is_cut_off_is_named(tmp_path):
    path = backup_of(make(METHODS["DeltaSTN"]()), tmp_path / "backup")
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(OSError, match=r"latest.weights.h5.*double_checkpoint"):
            fit(
                make(METHODS["DeltaSTN"]()),
                "arrays",
                [keras.callbacks.BackupAndRestore(tmp_path / "backup")],
            )
    path.write_bytes(whole[:512] + bytes(len(whole) - 512))
    with pytest.raises(OSError, match=r"latest.weights.h5.*double_checkpoint"):
        make(METHODS["DeltaSTN"]()).load_weights(path)


def test_the_former_backup_is_read_if_the_last_is_cut_off(tmp_path):
    folder, options = tmp_path / "backup", {"double_checkpoint": True, "save_freq": 3}
    path = backup_of(make(METHODS["DeltaSTN"]()), folder, **options)
    path.write_bytes(path.read_bytes()[:5000])
    resumed = make(METHODS["DeltaSTN"]())
    fit(resumed, "arrays", [keras.callbacks.BackupAndRestore(folder)])
    assert np.all(np.isfinite(resumed.get_weights()[0]))


def test_a_kill_while_a_backup_is_written_leaves_the_former(tmp_path, monkeypatch):
    model, path = make(METHODS["DeltaSTN"]()), tmp_path / "model.weights.h5"
    model.save_weights(path)
    before = path.read_bytes()

    def stop(self, store):
        raise Killed

    monkeypatch.setattr(bt.BilevelModel, "save_own_variables", stop)
    with pytest.raises(Killed):
        model.save_weights(path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    model.save_weights(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_that_is_not_there_is_left_to_keras(tmp_path):
    with pytest.raises(FileNotFoundError):
        make(METHODS["DeltaSTN"]()).load_weights(tmp_path / "none.weights.h5")
