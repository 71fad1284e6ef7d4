"""One row of a comparison with one seed: how far it came, and at what cost."""

import dataclasses
import math
from typing import Any

import numpy as np

from bilevel_tf.search.result import SearchResult
from bilevel_tf.search.trial import to_number, to_plain

TEST = ("test_outer_loss", "test_loss")


@dataclasses.dataclass
class ComparedRun:
    """A fit or a search, with one seed.

    Attributes:
        row: Name of the row.
        seed: The seed.
        values: The hyperparameters found, by name: numbers, or nested lists.
        validation: Validation loss after every epoch; of a search, of all trials.
        steps: Training steps until then, one number per validation loss.
        seconds: Seconds until then, likewise.
        final: Validation loss at the end; of a search, of the best trial.
        test: Loss on the test data at the end, or `None`.
        diverged: Whether the fit diverged, or all trials of the search.
        retrained: `None`, or what training from scratch at `values` gave: a dict with
            "validation" and, if there are test data, "test".
    """

    row: str
    seed: int
    values: dict[str, Any]
    validation: list[float]
    steps: list[float]
    seconds: list[float]
    final: float
    test: float | None
    diverged: bool = False
    retrained: dict[str, float] | None = None

    @property
    def best_so_far(self) -> np.ndarray:
        """The least validation loss until every epoch."""
        finite = [loss if math.isfinite(loss) else math.inf for loss in self.validation]
        return np.minimum.accumulate(np.asarray(finite, "float64"))

    @property
    def best(self) -> float:
        """The least validation loss after any epoch."""
        return float(self.best_so_far[-1])

    def cost_of(self, loss: float, by: str = "steps") -> float:
        """Return the steps or seconds after which a validation loss was reached.

        Args:
            loss: The loss.
            by: "steps" or "seconds".

        Returns:
            A number, infinite if the loss was never reached.
        """
        reached = np.flatnonzero(self.best_so_far <= loss)
        return float(getattr(self, by)[reached[0]]) if len(reached) else math.inf

    def to_record(self) -> dict[str, Any]:
        """Return a dict for JSON, in which `None` stands for what is not finite."""
        fields = [field.name for field in dataclasses.fields(self)]
        return {name: to_plain(getattr(self, name)) for name in fields}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "ComparedRun":
        """Return the run that `to_record` described."""
        found = {f.name: record[f.name] for f in dataclasses.fields(cls)}
        found["validation"] = [to_number(loss) for loss in found["validation"]]
        found["final"] = to_number(found["final"])
        return cls(**found)


def run_of_search(row: str, seed: int, result: SearchResult) -> ComparedRun:
    """Return what a search comes to in a comparison."""
    diverged = all(math.isinf(trial.score) for trial in result.trials)
    best = result.trials[0] if diverged else result.best
    return ComparedRun(
        row=row,
        seed=seed,
        values=best.values,
        validation=[loss for trial in result.trials for loss in trial.validation],
        steps=result.best_so_far("steps", every_epoch=True)[0].tolist(),
        seconds=result.best_so_far("seconds", every_epoch=True)[0].tolist(),
        final=math.inf if diverged else best.validation[-1],
        test=find_test(best.losses),
        diverged=diverged,
    )


def find_test(losses: dict[str, float]) -> float | None:
    """Return the loss on test data that is of the kind that judges."""
    return next((losses[name] for name in TEST if name in losses), None)
