"""The progress bar of a search."""

import math
from collections.abc import Iterable
from typing import Any

import keras

from bilevel_tf.search.trial import TrialResult


class ProgressBar:
    """Shows how many trials are finished, and the best score.

    Args:
        total: Number of trials, or `None` if it is not known.
        verbose: 0, 1, 2 or "auto", as in Keras.
        finished: Trials that are finished already.

    Raises:
        ValueError: If `verbose` is something else.
    """

    def __init__(
        self, total: int | None, verbose: Any, finished: Iterable[TrialResult]
    ):
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(
                f"`verbose` must be 0, 1, 2 or 'auto'. Received: verbose={verbose!r}"
            )
        self._bar = keras.utils.Progbar(
            total,
            verbose=1 if verbose == "auto" else int(verbose),
            stateful_metrics=["best_score"],
            unit_name="trial",
        )
        self._count, self._best = 0, math.inf
        for trial in finished:
            self.add(trial)

    def add(self, trial: TrialResult) -> None:
        """Show that a trial is finished."""
        self._count += 1
        self._best = min(self._best, trial.score)
        last = self._count == self._bar.target
        self._bar.update(self._count, [("best_score", self._best)], finalize=last)

    def close(self) -> None:
        """End the line, if it has not been."""
        if self._count and self._count != self._bar.target:
            shown = [("best_score", self._best)]
            self._bar.update(self._count, shown, finalize=True)
