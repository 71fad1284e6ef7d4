"""Arguments of `fit` that say which data are used, and how."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt

COUNT = 12


class Seen(bt.methods.Method):
    """Writes down the outer batches."""

    def outer_step(self, network, validation, training):
        batches = self.batches
        tf.py_function(lambda y: batches.append(y.numpy().ravel()), [validation[1]], [])
        return {}


def fit(x, y=None, **arguments):
    """The labels of all outer batches, and the validation loss of each epoch."""
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((1,))
    layer = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    layer.kernel.assign([[0.0]])
    method = Seen(train_steps=1)
    method.batches = []
    rate = keras.optimizers.SGD(0.0)
    model.compile(rate, loss=lambda y, p: y + 0.0 * p, method=method)
    history = model.fit(x, y, verbose=0, **arguments).history
    return method.batches, history


def numbered(start, count=COUNT):
    numbers = np.arange(start, start + count, dtype="float32")[:, None]
    return numbers, numbers


def slices(arrays, size=2):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def batches_of(arrays, size=2):
    for first in range(0, len(arrays[0]), size):
        yield tuple(array[first : first + size] for array in arrays)


def test_the_size_of_validation_batches():
    valid = numbered(100)
    outer, _ = fit(*numbered(0), batch_size=3, validation_data=valid)
    assert {len(y) for y in outer} == {3}
    options = {"batch_size": 3, "validation_batch_size": 4}
    outer, _ = fit(*numbered(0), validation_data=valid, **options)
    assert {len(y) for y in outer} == {4}


def test_numbers_of_steps_cut_arrays():
    """Without `batch_size` Keras cuts arrays into that many batches."""
    valid = numbered(100, 10)
    options = {"steps_per_epoch": 4, "validation_steps": 2}
    outer, history = fit(*numbered(0), validation_data=valid, **options)
    assert {len(y) for y in outer} == {5}
    assert len(outer) == 4
    assert history["val_loss"] == [pytest.approx(104.5)]


@pytest.mark.parametrize("kind", ["arrays", "dataset", "endless", "generator"])
def test_validation_steps_hold_for_outer_steps(kind):
    valid = numbered(100)
    valid = {
        "arrays": lambda: valid,
        "dataset": lambda: slices(valid),
        "endless": lambda: slices(valid).repeat(),
        "generator": lambda: batches_of(valid),
    }[kind]()
    outer, history = fit(
        *numbered(0), batch_size=2, epochs=2, validation_data=valid, validation_steps=3
    )
    assert set(np.concatenate(outer)) == {100, 101, 102, 103, 104, 105}
    assert history["val_loss"] == pytest.approx([102.5, 102.5])


def test_validation_frequency_holds_for_the_evaluation_alone():
    valid = numbered(100)
    outer, history = fit(
        *numbered(0), batch_size=2, epochs=4, validation_data=valid, validation_freq=2
    )
    assert len(history["val_loss"]) == 2
    assert len(outer) == 24
    fit(*numbered(0), epochs=2, validation_data=valid, validation_freq=[1])


def test_endless_training_data():
    outer, history = fit(
        slices(numbered(0)).repeat(), steps_per_epoch=6, epochs=2,
        validation_data=numbered(100), shuffle=False,
    )  # fmt: skip
    assert history["loss"] == pytest.approx([5.5, 5.5])
    assert len(outer) == 12


def test_a_validation_generator_is_read_once():
    read = []

    def batches():
        for batch in batches_of(numbered(100)):
            read.append(1)
            yield batch

    outer, history = fit(
        *numbered(0), batch_size=2, epochs=3, validation_data=batches()
    )
    assert len(read) == 6
    assert history["val_loss"] == pytest.approx([105.5] * 3)
    assert set(np.concatenate(outer)) == set(range(100, 112))


def test_generators_for_both():
    valid = batches_of(numbered(100))
    outer, history = fit(batches_of(numbered(0)), validation_data=valid)
    assert history["loss"] == pytest.approx([5.5])
    assert len(outer) == 6


def test_a_data_set_in_a_tuple():
    outer, _ = fit(*numbered(0), validation_data=(slices(numbered(100)),))
    assert outer


def test_nan_for_which_the_model_is_made():
    """A layer may fill in what is missing; the data are then as good as others."""
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((1,))
    filled = keras.layers.Lambda(lambda x: tf.where(tf.math.is_nan(x), 0.0, x))(inputs)
    outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(filled)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile("sgd", "mse", method=bt.methods.T1T2(train_steps=1))
    x, y = np.ones((4, 1)), np.ones((4, 1))
    x[1] = np.nan
    model.fit(x, y, validation_data=(x, y), verbose=0)
    assert np.isfinite(hp.values()["l2"])


def test_numpy_numbers_are_numbers():
    options = {"batch_size": np.int64(3), "epochs": np.int32(1)}
    fit(*numbered(0), validation_data=numbered(100), **options)
