"""Training, validation and test sets of the problems."""

import typing

import keras
import numpy as np
from sklearn.datasets import load_diabetes, load_digits


class Data(typing.NamedTuple):
    """Pairs of inputs and targets."""

    train: tuple[np.ndarray, np.ndarray]
    valid: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def load_image_slice(name, scale, split, flat=True):
    """Return 2,560, 1,280 and 4,000 images of 14×14, times `scale`, standardised.

    Args:
        name: "mnist" or "fashion_mnist".
        scale: Factor of the numbers of images.
        split: Which slice of the training images to take, from 0.
        flat: Whether images are vectors. Defaults to `True`.
    """
    (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    train, valid, test = (round(scale * n) for n in (2560, 1280, 4000))
    first = split * (train + valid)
    if len(x) < first + train + valid:
        raise ValueError(
            f"Slice {split} needs {first + train + valid} training images. "
            f"Received: {len(x)}"
        )
    ends = slice(first, first + train), slice(first + train, first + train + valid)
    parts = [(x[ends[0]], y[ends[0]]), (x[ends[1]], y[ends[1]])]
    parts.append((x_test[:test], y_test[:test]))
    pooled = [(halve(images), labels) for images, labels in parts]
    mean, deviation = pooled[0][0].mean(), pooled[0][0].std()
    shape = (-1,) if flat else (14, 14, 1)
    return Data(
        *(
            (as_inputs((x - mean) / deviation, shape), labels.astype("int32"))
            for x, labels in pooled
        )
    )


def halve(images):
    """Return images, `[n, 2h, 2w]`, by the means of blocks of 2×2, `[n, h, w]`."""
    count, height, width = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2)
    return blocks.mean((2, 4)) / 255.0


def as_inputs(x, shape):
    """Return single-precision inputs `[n, *shape]`."""
    return x.reshape(len(x), *shape).astype("float32")


def load_mnist(scale, split):
    """Return MNIST as the Δ-STN paper uses it: the last 15 % are validation data.

    Args:
        scale: Factor of the number of training images, up to 1.
        split: 0 for the last 15 %, 1 for those before them, and so on.
    """
    (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
    count = round(scale * len(x))
    size = count - int(0.85 * count)
    start = count - (split + 1) * size
    held = np.arange(start, start + size)
    rest = np.delete(np.arange(count), held)

    def pair(images, labels):
        return as_inputs((images / 255.0 - 0.1307) / 0.3081, (-1,)), labels.astype(
            "int32"
        )

    return Data(pair(x[rest], y[rest]), pair(x[held], y[held]), pair(x_test, y_test))


def load_split(load, sizes, scale, split, targets="int32"):
    """Return a shuffled data set of scikit-learn's, standardised by its training part.

    Args:
        load: Function that returns inputs and targets.
        sizes: Numbers of training and validation examples; the others are test data.
        scale: Factor of these numbers.
        split: Seed of the order.
        targets: Dtype of the targets; real ones are standardised. Defaults to "int32".
    """
    x, y = load(return_X_y=True)
    order = np.random.default_rng(split).permutation(len(x))
    train, valid = (round(scale * size) for size in sizes)
    parts = np.split(order, [train, train + valid])
    mean, deviation = x[parts[0]].mean(0), x[parts[0]].std(0)
    x = (x - mean) / np.where(deviation > 0, deviation, 1.0)
    if targets != "int32":
        y = ((y - y[parts[0]].mean()) / y[parts[0]].std())[:, None]
    return Data(*((as_inputs(x[p], (-1,)), y[p].astype(targets)) for p in parts))


def load_small_digits(scale, split):
    """Return 300, 300 and 1,197 of scikit-learn's digits."""
    return load_split(load_digits, (300, 300), scale, split)


def load_small_diabetes(scale, split):
    """Return 200, 100 and 142 patients of scikit-learn's diabetes data."""
    return load_split(load_diabetes, (200, 100), scale, split, "float32")
