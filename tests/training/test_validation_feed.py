"""Validation batches without end."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.training.data.validation_data import split_validation
from bilevel_tf.training.data.validation_feed import Endless, OuterFeed


def numbered(count):
    """Examples that are their own number."""
    return np.arange(count, dtype="float32")[:, None], np.arange(count)


def endless(data, batch_size, start):
    return Endless(data, batch_size)(start)


def draw(feed, count):
    return list(itertools.islice(feed.as_numpy_iterator(), count))


def labels(feed, count):
    return np.concatenate([y for _, y in draw(feed, count)])


@pytest.mark.parametrize(("count", "size"), [(10, 4), (12, 4), (7, 7), (3, 8), (1, 2)])
def test_every_pass_is_a_permutation(count, size):
    stream = labels(endless(numbered(count), size, 0), 5 * count)
    passes = stream[: 5 * count].reshape(5, count)
    np.testing.assert_array_equal(np.sort(passes, -1), [range(count)] * 5)


def test_passes_differ_and_batches_have_one_size():
    batches = draw(endless(numbered(20), 8, 0), 50)
    assert {x.shape for x, _ in batches} == {(8, 1)}
    assert {y.shape for _, y in batches} == {(8,)}
    passes = np.concatenate([y for _, y in batches]).reshape(20, 20)
    assert len({tuple(order) for order in passes}) == 20


def test_batches_are_static_for_xla():
    x, y = endless(numbered(20), 8, 0).element_spec
    assert x.shape[1:] == (1,)
    assert y.dtype == tf.int64


def test_inputs_and_labels_stay_together():
    for x, y in draw(endless(numbered(11), 4, 0), 9):
        np.testing.assert_array_equal(x[:, 0], y)


@pytest.mark.parametrize("start", [1, 3, 7, 1000])
def test_start_continues_the_stream(start):
    straight = labels(endless(numbered(10), 4, 0), start + 5)
    resumed = labels(endless(numbered(10), 4, start), 5)
    np.testing.assert_array_equal(straight[4 * start :], resumed)


def test_stream_does_not_depend_on_global_seeds():
    keras.utils.set_random_seed(1)
    one = labels(endless(numbered(10), 4, 0), 8)
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(one, labels(endless(numbered(10), 4, 0), 8))


@pytest.mark.parametrize("weighted", [False, True])
def test_structures(weighted):
    x, y = numbered(6)
    data = (
        {"a": x, "b": [x, np.repeat(x, 3, -1)]},
        [y, {"c": y}],
        *([y.astype("float32")] if weighted else [None]),
    )
    batch = draw(endless(data, 4, 0), 1)[0]
    assert len(batch) == 2 + weighted
    inputs, targets = batch[:2]
    assert inputs["b"][1].shape == (4, 3)
    np.testing.assert_array_equal(inputs["a"], inputs["b"][0])
    np.testing.assert_array_equal(inputs["a"][:, 0], targets[1]["c"])
    np.testing.assert_array_equal(targets[0], targets[1]["c"])


def test_dataset_repeats():
    dataset = tf.data.Dataset.from_tensor_slices(numbered(6)).batch(4)
    np.testing.assert_array_equal(
        labels(endless(dataset, None, 0), 4), [*range(6), *range(6)]
    )


@pytest.mark.parametrize("method", [bt.DeltaSTN(), bt.methods.RMAD(2)])
def test_outer_steps_are_not_autotuned(method):
    data = (*numbered(6), None)
    feed = OuterFeed(None, data, (4, 4), method)(0)
    assert not feed.options().autotune.enabled
    assert len(draw(feed, 1)[0]) == (2 if method.inner_batches else 1)


class Batches(keras.utils.PyDataset):
    hooks = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        x = np.full((2, 1), index, "float32")
        return [x, x], index + np.zeros(2, "int64")

    def on_epoch_begin(self):
        self.hooks += 1

    def on_epoch_end(self):
        self.hooks += 1


def test_py_dataset_passes():
    dataset = Batches()
    batches = draw(endless(dataset, None, 0), 12)
    order = [int(y[0]) for _, y in batches]
    np.testing.assert_array_equal(np.sort(np.reshape(order, (4, 3))), [range(3)] * 4)
    assert dataset.hooks == 0
    assert all(len(x) == 2 and x[1][0, 0] == y[0] for x, y in batches)


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_split(kind):
    x, y = numbered(10)
    x = tf.constant(x) if kind == "tensor" else x
    train, valid = split_validation(({"a": x}, y, None), None, 0.3)
    assert len(train[0]["a"]) == 7
    np.testing.assert_array_equal(valid[0]["a"][:, 0], [7, 8, 9])
    np.testing.assert_array_equal(valid[1], [7, 8, 9])
    assert train[2] is None


def test_given_validation_data_comes_before_the_split():
    train, valid = split_validation((*numbered(10), None), numbered(4), 0.3)
    assert len(train[0]) == 10
    assert len(valid[0]) == 4


# What of the validation data is used


def evens(count):
    """Examples as batches of 2, in every kind of data."""
    x, y = numbered(count)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
    return {
        "arrays": (x, y, None),
        "dataset": dataset,
        "endless dataset": dataset.repeat(),
        "py_dataset": Pairs(count),
        "endless py_dataset": Pairs(None),
    }


class Pairs(keras.utils.PyDataset):
    def __init__(self, count):
        super().__init__()
        self.count = count

    @property
    def num_batches(self):
        return self.count and self.count // 2

    def __getitem__(self, index):
        y = np.arange(2 * index, 2 * index + 2)
        return y[:, None].astype("float32"), y


@pytest.mark.parametrize("kind", evens(2))
def test_steps_limit_the_data(kind):
    feed = Endless(evens(20)[kind], 2, steps=3)(0)
    assert set(labels(feed, 9)) == set(range(6))


@pytest.mark.parametrize("kind", ["dataset", "py_dataset", "endless py_dataset"])
@pytest.mark.parametrize("start", [1, 4, 11, 30])
def test_data_sets_go_on_where_they_stopped(kind, start):
    data = evens(10)[kind]
    straight = labels(Endless(data, 2)(0), start + 5)
    np.testing.assert_array_equal(
        straight[2 * start :], labels(Endless(data, 2)(start), 5)
    )


def test_a_data_set_of_unknown_length_goes_on_where_it_stopped():
    data = evens(10)["dataset"].filter(lambda x, y: True)
    np.testing.assert_array_equal(labels(Endless(data, 2)(12), 1), [4, 5])


def test_batches_of_other_lengths():
    class Growing(Pairs):
        def __getitem__(self, index):
            return np.ones((2, index + 1, 3), "float32"), np.zeros(2)

    feed = Endless(Growing(8), 2)(0)
    assert feed.element_spec[0].shape.as_list() == [None, None, 3]
    assert {x.shape[1] for x, _ in draw(feed, 4)} == {1, 2, 3, 4}


def test_the_order_of_a_py_dataset_leaves_the_users_random_numbers_alone():
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    draw(Endless(Pairs(8), 2)(0), 9)
    assert np.random.random() == expected
