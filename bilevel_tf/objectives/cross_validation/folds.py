"""Which example is in which fold."""

from typing import Any

import keras
import numpy as np


def fold_numbers(
    count: int, folds: int, seed: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """Draw the number of the fold of every example.

    Sizes of folds differ by at most one, and so do the numbers of examples of a class
    in them. The result depends only on the arguments.

    Args:
        count: Number of examples.
        folds: k, the number of folds.
        seed: A whole number from 0.
        labels: Class of every example, whole numbers `[count]`, to stratify by.
            Defaults to `None`: no stratification.

    Returns:
        Numbers from 0 to k − 1, `[count]`, int32.
    """
    # RandomState draws the same in every version of NumPy, which newer generators do
    # not promise: training that goes on must not see what it has been judged on.
    order = np.random.RandomState(seed).permutation(count)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    numbers = np.empty(count, "int32")
    numbers[order] = np.arange(count) % folds
    return numbers


def class_labels(y: Any) -> np.ndarray | None:
    """Find the class of every example.

    Args:
        y: Targets as given to `fit`.

    Returns:
        Numbers from 0, `[n]`, if `y` is one array of whole numbers, `[n]` or `[n, 1]`,
        or of one-hot rows, `[n, classes]`; otherwise `None`.
    """
    if y is None or keras.tree.is_nested(y):
        return None
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] > 1:
        if not (np.all((y == 0) | (y == 1)) and np.all(y.sum(1) == 1)):
            return None
        y = y.argmax(1)
    if y.size != len(y) or not np.all(y == np.floor(y)):
        return None
    return np.unique(y.reshape(-1), return_inverse=True)[1]
