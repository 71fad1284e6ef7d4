"""How examples are assigned to folds."""

import numpy as np
import pytest

import bilevel_tf as bt
from bilevel_tf.objectives.cross_validation.folds import class_labels, fold_numbers
from tests.objectives.classifiers import classifier, crossentropy, dense


def test_folds_are_equal_and_fixed():
    numbers = fold_numbers(23, 5, seed=0)
    assert sorted(np.bincount(numbers)) == [4, 4, 5, 5, 5]
    np.testing.assert_array_equal(numbers, fold_numbers(23, 5, seed=0))
    assert np.any(numbers != fold_numbers(23, 5, seed=1))
    # Training that goes on in another version must find them where they were.
    np.testing.assert_array_equal(fold_numbers(8, 3, seed=0), [2, 2, 1, 1, 1, 0, 0, 0])


def test_leave_one_out_has_one_example_per_fold():
    assert sorted(fold_numbers(9, 9, seed=0)) == list(range(9))


def test_stratified_folds_have_the_classes_in_equal_shares():
    labels = np.random.default_rng(0).choice(3, size=50, p=[0.6, 0.28, 0.12])
    numbers = fold_numbers(50, 4, 0, labels)
    assert sorted(np.bincount(numbers)) == [12, 12, 13, 13]
    for label in range(3):
        assert np.ptp(np.bincount(numbers[labels == label], minlength=4)) <= 1
    # Chance alone would not do that.
    plain = fold_numbers(50, 4, 0)
    assert np.ptp(np.bincount(plain[labels == 0], minlength=4)) > 1


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([3, 5, 3], [0, 1, 0]),
        ([[1.0], [0.0], [1.0]], [1, 0, 1]),
        ([[0, 1], [1, 0], [0, 1]], [1, 0, 1]),
        ([[0, 0, 1], [1, 0, 0], [0, 0, 1]], [1, 0, 1]),
        ([[1, 1], [1, 0], [0, 0]], None),
        ([0.5, 1.0, 2.0], None),
        (np.zeros((3, 2, 2)), None),
    ],
)
def test_classes_are_recognised(y, expected):
    found = class_labels(np.asarray(y))
    assert (found if found is None else found.tolist()) == expected


def test_several_targets_are_no_classes():
    assert class_labels([np.zeros(3), np.zeros(3)]) is None


LABELS = np.repeat([0, 1, 2], [20, 6, 4])


@pytest.mark.parametrize(
    ("loss", "stratified", "expected"),
    [
        ("crossentropy", None, True),
        ("sparse_categorical_crossentropy", None, True),
        ("categorical_crossentropy", None, True),
        (["sparse_categorical_crossentropy"], None, True),
        ("crossentropy", False, False),
        ("mse", None, False),
        ("mse", True, True),
    ],
)
def test_stratification_is_for_classes_under_a_crossentropy(loss, stratified, expected):
    objective = bt.CrossValidation(3, stratified)
    given = crossentropy() if loss == "crossentropy" else loss
    model = classifier(dense(activation="relu"), objective=objective, loss=given)
    y = {
        "categorical_crossentropy": np.eye(3, dtype="float32")[LABELS],
        "mse": LABELS[:, None].astype("float32"),
    }.get(str(loss), LABELS)
    (_, found), *_ = objective.prepare(model.network, np.ones((30, 4)), y, None)
    plain = fold_numbers(30, 3, 0)
    assert np.any(found != plain) == expected
    labels = LABELS if expected else None
    np.testing.assert_array_equal(found, fold_numbers(30, 3, 0, labels))
