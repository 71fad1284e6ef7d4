"""What is the same in all trials of a search."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras

from bilevel_tf._arguments import check_count
from bilevel_tf.search.building import as_builder, build_model
from bilevel_tf.search.data import check_held_out, check_training, describe_data
from bilevel_tf.search.trial import Proposal
from bilevel_tf.training.bilevel_model import BilevelModel


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is the same in all trials.

    Attributes:
        build: Function that returns a new, compiled `BilevelModel`.
        training: x, y and sample weights: arrays, or structures of them, or `None`.
        validation: The same of the validation data.
        test: The same of test data, or `None`.
        epochs: Number of epochs of a whole training.
        batch_size: Number of examples in a batch.
        executions: Number of trainings per trial.
        seed: Seed of the first of them; the next ones have the following seeds.
        score: "final" or "best".
        folder: Folder for states of training that are gone on with, or `None`.
    """

    build: Callable[[], BilevelModel]
    training: tuple
    validation: tuple
    test: tuple | None
    epochs: int
    batch_size: int
    executions: int
    seed: int
    score: str
    folder: str | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of training steps in an epoch."""
        examples = len(keras.tree.flatten(self.training[0])[0])
        return math.ceil(examples / self.batch_size)

    def count_steps(self, proposal: Proposal) -> int:
        """Return the number of training steps that a trial takes."""
        epochs = proposal.epochs - proposal.initial_epoch
        return epochs * self.steps_per_epoch * self.executions

    @property
    def seeds(self) -> list[int]:
        """The seeds of the executions."""
        return [self.seed + execution for execution in range(self.executions)]

    def describe(self) -> dict[str, Any]:
        """Return what must be the same for a file to be gone on with."""
        held_out = self.validation, self.test
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "executions_per_trial": self.executions,
            "seed": self.seed,
            "score": self.score,
            "data": describe_data(self.training, *held_out),
        }


def make_setting(
    build: Any,
    training: tuple,
    validation_data: Any,
    test_data: Any,
    *,
    epochs: int,
    batch_size: int,
    executions: int = 1,
    seed: int = 0,
    score: str = "final",
) -> tuple[Setting, BilevelModel]:
    """Check what a search is given.

    Args:
        build: Function that returns a compiled `BilevelModel`, or such a model.
        training: x, y and sample weights.
        validation_data, test_data: Held-out data; there may be no test data.
        epochs, batch_size, executions, seed, score: As in `Setting`.

    Returns:
        The setting, and a model that was built.

    Raises:
        TypeError, ValueError: If something does not fit.
    """
    check_count(epochs, "epochs", 1)
    check_count(batch_size, "batch_size", 1)
    check_count(executions, "executions_per_trial", 1)
    check_count(seed, "seed", 0)
    builder = as_builder(build)
    model = build_model(builder, seed)
    checked = check_training(model, *training)
    validation = check_held_out(model, validation_data, "validation_data", checked)
    test = None
    if test_data is not None:
        test = check_held_out(model, test_data, "test_data", checked)
    setting = Setting(
        builder,
        checked,
        validation,
        test,
        int(epochs),
        int(batch_size),
        int(executions),
        int(seed),
        score,
    )
    return setting, model
