"""The problems: data, network, hyperparameters and settings of training."""

import dataclasses
import functools
from collections.abc import Callable

import keras

import bilevel_tf as bt

from . import data_sets, networks


def cross_entropy():
    """Return the loss of classifiers."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def sgd(learning_rate):
    """Return a function that makes SGD with a momentum of 0.9."""
    return lambda: keras.optimizers.SGD(learning_rate, momentum=0.9)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem of the table.

    Attributes:
        load: Function of scale and split that returns the `Data`. The scale is 1 for
            the sizes of the table and smaller for tests.
        scales: Function that returns the scales of the hyperparameters by name, which
            begin at their initial values.
        connect: Function of the inputs, the space and the scale that returns the
            outputs of the network.
        batch_size: Number of examples in a batch.
        epochs: Number of epochs.
        warmup_epochs: Number of epochs at the start that tune nothing.
        optimizer: Function that returns the optimizer of the weights.
        loss: Function that returns the loss. Defaults to cross-entropy on logits.
        method: Arguments of every method that takes them. Defaults to those of the
            Δ-STN paper on images.
        evaluate_every: Number of epochs from one evaluation to the next. Defaults to 1.
        long: Whether runs are so long that they are saved after every epoch, so that
            a run that was stopped goes on. Defaults to `False`.
    """

    load: Callable
    scales: Callable
    connect: Callable
    batch_size: int
    epochs: int
    warmup_epochs: int
    optimizer: Callable
    loss: Callable = cross_entropy
    method: dict = dataclasses.field(
        default_factory=lambda: {
            "train_steps": 5,
            "valid_steps": 1,
            "entropy_weight": 1e-3,
        }
    )
    evaluate_every: int = 1
    long: bool = False

    def make_space(self, initial=None, **arguments):
        """Return the space.

        Args:
            initial: Dict from names to values in place of the initial ones, or `None`.
            **arguments: Arguments in place of those of all scales, unless `None`.
        """
        scales = self.scales()
        common = {name: value for name, value in arguments.items() if value is not None}
        for name, scale in scales.items():
            change = dict(common)
            if name in (initial or {}):
                change["initial"] = initial[name]
            scales[name] = type(scale).from_config({**scale.get_config(), **change})
        return bt.HyperparameterSpace(scales)

    def make_model(self, shape, scale=1.0, initial=None, **arguments):
        """Return the `BilevelModel`, not compiled.

        Args:
            shape: Shape of an input.
            scale: Factor of the widths, up to 1.
            initial, **arguments: As in `make_space`.
        """
        space = self.make_space(initial, **arguments)
        inputs = keras.Input(shape)
        outputs = self.connect(inputs, space, scale)
        return bt.BilevelModel(inputs, outputs, hyperparameters=space)


IMAGES = {
    "scales": functools.partial(networks.rate_scales, networks.RATES),
    "optimizer": sgd(0.01),
    "warmup_epochs": 5,
}

PROBLEMS = {
    "mnist-slice": Problem(
        load=functools.partial(data_sets.load_image_slice, "mnist"),
        connect=functools.partial(networks.dropout_mlp, 128),
        batch_size=64,
        epochs=75,
        **IMAGES,
    ),
    "fashion-slice": Problem(
        load=functools.partial(data_sets.load_image_slice, "fashion_mnist"),
        connect=functools.partial(networks.dropout_mlp, 128),
        batch_size=64,
        epochs=75,
        **IMAGES,
    ),
    "digits-decay": Problem(
        load=data_sets.load_small_digits,
        scales=networks.decay_scales,
        connect=networks.decay_mlp,
        batch_size=30,
        epochs=200,
        warmup_epochs=5,
        optimizer=sgd(0.02),
    ),
    "cnn-slice": Problem(
        load=functools.partial(data_sets.load_image_slice, "fashion_mnist", flat=False),
        scales=networks.cnn_scales,
        connect=networks.cnn,
        batch_size=64,
        epochs=60,
        warmup_epochs=5,
        optimizer=sgd(0.01),
    ),
    "diabetes": Problem(
        load=data_sets.load_small_diabetes,
        scales=networks.regression_scales,
        connect=networks.regression_mlp,
        batch_size=20,
        epochs=150,
        warmup_epochs=5,
        optimizer=sgd(0.005),
        loss=keras.losses.MeanSquaredError,
    ),
    "mnist": Problem(
        load=data_sets.load_mnist,
        connect=functools.partial(networks.dropout_mlp, 1200),
        batch_size=128,
        epochs=40,
        long=True,
        **IMAGES,
    ),
    # Further rows of the paper's table go here: its CNN on FashionMNIST, AlexNet, VGG16
    # and ResNet18 on CIFAR-10. Each is a function in `networks.py` and an entry.
}
