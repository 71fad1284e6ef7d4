"""What is to be trained in a trial of a search, and what came of it."""

import dataclasses
import math
from typing import Any

import numpy as np

DIVERGED = "diverged"
FINISHED = "finished"


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A point that a search wants to be tried.

    Args:
        point: A tuple with a number in [0, 1] for every entry; or, in a grid, a dict of
            the values themselves by name.
        epochs: Number of epochs up to which the network is trained.
        initial_epoch: Number of epochs that the network has been trained already, in
            the trial `parent`. Defaults to 0.
        parent: Number of that trial, or `None`.
        place: What the search needs to know about it later, plain numbers by name.
    """

    point: Any
    epochs: int
    initial_epoch: int = 0
    parent: int | None = None
    place: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Past:
    """A trial that has been proposed before.

    Args:
        proposal: What was proposed.
        score: Its score, the smaller the better, or `None` while it is trained.
    """

    proposal: Proposal
    score: float | None


@dataclasses.dataclass
class TrialResult:
    """A finished trial of a search.

    Attributes:
        number: Its number, from 0, in the order in which the search proposed trials.
        values: The hyperparameters by name: numbers, or nested lists.
        score: What the search compares, the smaller the better: the validation loss,
            mean over executions. Infinite if the trial diverged.
        status: "finished", or "diverged" if a loss became NaN or infinite.
        epochs: Number of epochs up to which the network was trained.
        initial_epoch: Number of epochs taken over from the trial `parent`.
        parent: Number of the trial whose weights were trained on, or `None`.
        steps: Number of training steps of all executions.
        seconds: Time in seconds, of building, tracing and training.
        seeds: The seed of each execution.
        validation: Validation loss after each epoch, mean over executions.
        losses: Other losses and metrics after the last epoch by name, means over
            executions; those on test data begin with "test_".
        point: The point in the terms of the search.
        place: What the search knows about the trial beside.
    """

    number: int
    values: dict[str, Any]
    score: float
    status: str
    epochs: int
    initial_epoch: int
    parent: int | None
    steps: int
    seconds: float
    seeds: list[int]
    validation: list[float]
    losses: dict[str, float]
    point: Any
    place: dict[str, int]

    @property
    def proposal(self) -> Proposal:
        """What the search proposed."""
        return Proposal(
            self.point, self.epochs, self.initial_epoch, self.parent, self.place
        )

    def to_record(self) -> dict[str, Any]:
        """Return a dict for JSON, in which `None` stands for what is not finite."""
        return {
            name: _to_plain(getattr(self, name))
            for name in [field.name for field in dataclasses.fields(self)]
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "TrialResult":
        """Return the trial that `to_record` described.

        Raises:
            ValueError: If something is missing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in record]
        if missing:
            raise ValueError(
                "A line of `search.jsonl` is not a trial. Give another `directory`, or "
                f"remove the file. Received: a line without {missing[:3]}"
            )
        found = {name: record[name] for name in names}
        if isinstance(found["point"], list):
            found["point"] = tuple(found["point"])
        found["score"] = _to_number(found["score"])
        found["validation"] = [_to_number(loss) for loss in found["validation"]]
        found["losses"] = {n: _to_number(v) for n, v in found["losses"].items()}
        return cls(**found)


def _to_plain(value):
    if isinstance(value, dict):
        return {name: _to_plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _to_number(value):
    return math.inf if value is None else value
