"""Every epoch reads every example once, and a user's code runs as under plain Keras."""

import contextlib
import threading
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.training.data.py_datasets import InTurn, read_owned
from bilevel_tf.training.data.recent_batches import RecentBatches

COUNT, SIZE = 64, 8


class Reading(keras.utils.PyDataset):
    """Examples that are their own number, in an order that every epoch's end changes.

    It notes when it is read, and whether two threads are in any such object's code.
    """

    inside = threading.Lock()

    def __init__(self, count=COUNT, start=0, shuffles=True, **arguments):
        super().__init__(**arguments)
        self.shuffles = shuffles
        self.numbers = np.arange(start, start + count)
        self.generator = np.random.default_rng(0)
        self.events, self.reads, self.collisions = [], 0, 0

    def alone(self, action, pause=0.0):
        if not Reading.inside.acquire(blocking=False):
            self.collisions += 1
            return action()
        time.sleep(pause)
        result = action()
        Reading.inside.release()
        return result

    def __len__(self):
        return self.alone(lambda: -(-len(self.numbers) // SIZE))

    def __getitem__(self, index):
        self.reads += 1
        return self.alone(lambda: self.cut(index), pause=0.001)

    def cut(self, index):
        numbers = self.numbers[index * SIZE : (index + 1) * SIZE]
        return numbers[:, None] / COUNT, numbers.astype("float32")[:, None]

    def on_epoch_begin(self):
        self.alone(lambda: self.events.append("begin"), pause=0.001)

    def on_epoch_end(self):
        self.alone(lambda: self.events.append("end"), pause=0.001)
        if self.shuffles:
            self.generator.shuffle(self.numbers)


def label(y, predictions):
    return y


def train(plain, method=None, x=None, valid=None, epochs=3, objective=None, **options):
    """Means of the labels in each epoch, of training and of validation data."""
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((1,))
    outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    if plain:
        model, more = keras.Model(inputs, outputs), {}
    else:
        model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
        more = {"method": method, "objective": objective}
    compiled = {
        name: options.pop(name) for name in ("steps_per_execution",) if name in options
    }
    optimizer = keras.optimizers.SGD(1e-5)
    model.compile(optimizer, loss="mse", metrics=[label], **more, **compiled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = model.fit(
            x, validation_data=valid, epochs=epochs, verbose=0, **options
        ).history
    if not plain:
        assert model.progress.outer_steps > 0
    return [*history["label"], *history.get("val_label", [])]


METHODS = {
    "DeltaSTN": lambda: bt.DeltaSTN(train_steps=3),
    "Neumann": lambda: bt.Neumann(2, train_steps=3),
    "T1T2": lambda: bt.methods.T1T2(train_steps=3, valid_steps=2),
    "HOAG": lambda: bt.methods.HOAG(train_steps=3),
    "Greedy": lambda: bt.methods.Greedy(train_steps=3),
    "DARTS": lambda: bt.methods.DARTS(0.1, train_steps=3),
    "Unrolled": lambda: bt.Unrolled(steps=4, train_steps=3),
    "Unrolled, fixed": lambda: bt.Unrolled(4, fixed_batches=True, train_steps=3),
    "ForwardMode": lambda: bt.methods.ForwardMode(steps=2, train_steps=3),
    "DrMAD": lambda: bt.methods.DrMAD(steps=2, train_steps=3),
}


def means(start, count, epochs=3):
    return [np.mean(np.arange(start, start + count))] * epochs


@pytest.mark.parametrize("name", METHODS)
def test_a_data_set_is_read_as_under_plain_keras(name):
    seen = {}
    for plain in (True, False):
        x, valid = Reading(), Reading(24, start=100)
        seen[plain] = train(plain, METHODS[name](), x, valid), x, valid
    (ours, x, valid), (theirs, plain_x, plain_valid) = seen[False], seen[True]
    assert ours == pytest.approx([*means(0, COUNT), *means(100, 24)])
    assert ours == pytest.approx(theirs)
    assert x.events == plain_x.events
    assert valid.events == plain_valid.events
    assert x.reads == plain_x.reads + 5 * ("fixed" in name)
    assert valid.reads > plain_valid.reads
    assert x.collisions == valid.collisions == 0


def test_one_data_set_for_training_and_validation():
    seen = {}
    for plain in (True, False):
        x = Reading()
        seen[plain] = train(plain, bt.Neumann(2, train_steps=3), x, x), x.events
        assert x.collisions == 0
    assert seen[False][0] == pytest.approx(means(0, COUNT, 6))
    assert seen[False][1] == seen[True][1]


@pytest.mark.parametrize("name", ["DeltaSTN", "Unrolled"])
def test_data_sets_with_workers(name):
    seen = {}
    for plain in (True, False):
        x, valid = Reading(workers=2), Reading(24, start=100, workers=2)
        result = train(plain, METHODS[name](), x, valid)
        seen[plain] = result, x.events, valid.events
    assert seen[False][0] == pytest.approx([*means(0, COUNT), *means(100, 24)])
    assert seen[False][1:] == seen[True][1:]


def test_steps_per_epoch_of_a_data_set():
    """An epoch of 3 of 8 batches goes on where the last one stopped."""
    seen = {}
    for plain in (True, False):
        # Plain Keras reads ahead, so that a new order might come too late.
        x, valid = Reading(shuffles=False), Reading(24, start=100)
        options = {"steps_per_epoch": 3, "shuffle": False, "epochs": 2}
        result = train(plain, bt.Neumann(2, train_steps=2), x, valid, **options)
        seen[plain] = result, valid.events
    # Plain Keras reads ahead while it calls the hooks; here they wait.
    assert x.collisions == valid.collisions == 0
    assert seen[False][0] == pytest.approx(seen[True][0])
    assert seen[False][1] == seen[True][1]


def test_judged_on_the_training_data():
    hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e2, initial=1.0))
    prior = bt.NormalPrior(hp["precision"], data_size=COUNT)
    inputs = keras.Input((1,))
    outputs = bt.VariationalDense(1, prior=prior)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    noise = bt.losses.GaussianLikelihood(1.0)
    method = bt.methods.GravesUpdate(train_steps=3, valid_steps=2)
    model.compile("sgd", noise, objective=bt.ELBO(), method=method, metrics=[label])
    x = Reading()
    history = model.fit(x, epochs=3, verbose=0).history
    assert history["label"] == pytest.approx(means(0, COUNT))
    assert x.events == ["end", *["begin", "end"] * 3]
    assert x.collisions == 0
    assert model.progress.outer_steps == 16


@pytest.mark.parametrize("steps_per_execution", [1, 3])
@pytest.mark.parametrize("name", ["Neumann", "Unrolled"])
def test_a_generator_trains_under_methods_that_draw(name, steps_per_execution):
    def batches():
        dataset = Reading()
        for number in range(3 * 8):
            yield dataset[number % 8]

    arguments = {"epochs": 3, "steps_per_epoch": 8}
    arguments["steps_per_execution"] = steps_per_execution
    valid = Reading(24, start=100)
    result = train(False, METHODS[name](), batches(), valid, **arguments)
    if steps_per_execution == 1:
        assert result == pytest.approx([*means(0, COUNT), *means(100, 24)])


def test_a_tf_data_set_is_read_once_an_epoch(tmp_path):
    """A cache in a file is an error for whoever reads the data in the meantime."""
    started = []

    def examples():
        started.append(1)
        yield from Reading().numbers

    spec = tf.TensorSpec((), tf.int64)
    dataset = tf.data.Dataset.from_generator(examples, output_signature=spec)
    dataset = dataset.map(lambda n: (n[None] / COUNT, tf.cast(n, "float32")[None]))
    dataset = dataset.batch(SIZE).cache(str(tmp_path / "cache"))
    result = train(False, METHODS["Unrolled"](), dataset, Reading(24, start=100))
    assert result == pytest.approx([*means(0, COUNT), *means(100, 24)])
    assert len(started) == 1


def test_a_validation_cache_in_a_file(tmp_path):
    """Outer steps and evaluations read in turns, each a part of the data."""
    numbers = np.arange(100, 124, dtype="float32")[:, None]
    valid = tf.data.Dataset.from_tensor_slices((numbers / COUNT, numbers)).batch(SIZE)
    valid = valid.cache(str(tmp_path / "cache"))
    result = train(False, bt.methods.T1T2(train_steps=3), Reading(), valid)
    assert result == pytest.approx([*means(0, COUNT), *means(100, 24)])


def test_batches_have_memory_of_their_own():
    """TensorFlow may write into what it is fed under a strategy."""
    x, other = np.arange(6.0).reshape(3, 2), tf.ones((3, 2))
    batch = {"x": x[1:], "more": [other, None]}, None

    class Given(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return batch

    for read in InTurn(Given(), contextlib.nullcontext())[0], next(read_owned([batch])):
        assert read[1] is None
        assert read[0]["more"][1] is None
        np.testing.assert_array_equal(read[0]["x"], x[1:])
        assert not np.shares_memory(read[0]["x"], x)
        assert not np.shares_memory(read[0]["more"][0], np.asarray(other))


def test_recent_batches_are_not_written_to():
    kept = tf.reshape(tf.range(128.0), (64, 2))
    recent = RecentBatches(1, 1)
    recent.keep((kept,), 0)
    feed = recent.feed(1, type("Progress", (), {"outer_steps": 0}))
    fed = next(iter(feed))[0]
    np.testing.assert_array_equal(fed, kept[None])
    assert not np.shares_memory(np.asarray(fed), np.asarray(kept))
