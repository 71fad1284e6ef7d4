"""Which example is in which part of the data."""

import keras
import numpy as np


def fold_numbers(count, folds, seed, labels=None):
    """Number of the fold of every example, `[count]`, int32.

    Sizes of folds differ by at most one, and so do the numbers of examples of a class
    in them.

    Args:
        count: Number of examples.
        folds: k.
        seed: A whole number. The assignment depends on nothing but the arguments.
        labels: Class of every example, `[count]`; `None` for no stratification.
    """
    # Unlike newer generators, the same in every version of NumPy: training that goes
    # on must not see what it has been judged on.
    order = np.random.RandomState(seed).permutation(count)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    numbers = np.empty(count, "int32")
    numbers[order] = np.arange(count) % folds
    return numbers


def class_labels(y):
    """Class of every example, from 0, `[n]`; `None` where `y` are not classes.

    Args:
        y: Whole numbers of shape `[n]` or `[n, 1]`, or one-hot rows `[n, classes]`.
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
