"""How many examples training data have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bilevel_tf.objectives.data_size import count_examples


class Batches(keras.utils.PyDataset):
    """100 examples in batches of 8, the last of 4."""

    reads = 0

    def __len__(self):
        return 13

    def __getitem__(self, index):
        self.reads += 1
        return np.zeros(8 if index < 12 else 4), np.zeros(8 if index < 12 else 4)


def slices(**arguments):
    data = tf.data.Dataset.from_tensor_slices((np.zeros((100, 2)), np.zeros(100)))
    return data.batch(8, **arguments)


KINDS = {
    "array": lambda: np.zeros((100, 2)),
    "arrays": lambda: {"a": np.zeros((100, 2)), "b": np.zeros(100)},
    "dataset": slices,
    "py_dataset": Batches,
}


@pytest.mark.parametrize("expected", [100, 10, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_counted(kind, expected):
    assert count_examples(KINDS[kind](), expected) == 100


def test_a_batch_that_is_left_out_may_belong_to_the_data():
    assert count_examples(slices(drop_remainder=True), 100) == 100
    assert count_examples(slices(drop_remainder=True), 105) == 96


def test_a_data_set_of_the_expected_size_is_not_read_through():
    data = Batches()
    assert count_examples(data, 100) == 100
    assert data.reads == 1


@pytest.mark.parametrize(
    "data",
    [
        slices().repeat(),
        slices().repeat(3),
        slices().filter(lambda x, y: True),
        (0 for _ in []),
    ],
)
def test_what_cannot_be_told_is_not_checked(data):
    assert count_examples(data, 100) is None
