"""What decides which trial comes next."""

import abc
import enum
import math
from collections.abc import Sequence
from typing import Any

from bilevel_tf.search.ranges import Range, list_entries, values_at
from bilevel_tf.search.trial import Past, Proposal

History = Sequence[Past]


class Turn(enum.Enum):
    """What a plan says if it proposes nothing.

    Attributes:
        WAIT: It needs the results of trials that are not finished.
        END: It has nothing more to propose.
    """

    WAIT = "wait"
    END = "end"


class Plan(abc.ABC):
    """Proposes the trials of one search.

    A plan keeps nothing: what it proposes depends on its arguments, the number of the
    trial and the results before it. So a search that was killed goes on as if nothing
    had happened, in whatever order trials finish.

    Args:
        ranges: The ranges of the hyperparameters.
        epochs: Number of epochs of a whole training.
        seed: Seed of the points.

    Attributes:
        total: Number of trials, or `None` if there is no end.
        goes_on: Whether trials go on with the training of others.
    """

    total: int | None = None
    goes_on = False

    def __init__(self, ranges: Sequence[Range], epochs: int, seed: int):
        self.ranges = ranges
        self.entries = list_entries(ranges)
        self.epochs = epochs
        self.seed = seed

    @abc.abstractmethod
    def propose(self, number: int, history: History) -> Proposal | Turn:
        """Propose a trial.

        Args:
            number: Its number.
            history: The trials before it, finished or not.
        """

    def describe(self) -> dict[str, Any]:
        """Return where it searches, for a file."""
        return {
            "ranges": [
                [r.name, list(r.shape), r.low, r.high, r.logarithmic, r.whole]
                for r in self.ranges
                if math.isfinite(r.low)
            ],
        }

    def values(self, proposal: Proposal) -> dict[str, Any]:
        """Return the hyperparameters of a trial by name."""
        return values_at(self.ranges, proposal.point)
