"""What a search has found."""

import math
from typing import Any

import numpy as np

from bilevel_tf._arguments import check_choice, check_count
from bilevel_tf.search.setting import Setting
from bilevel_tf.search.training import Trainer
from bilevel_tf.search.trial import FINISHED, TrialResult
from bilevel_tf.training.bilevel_model import BilevelModel


class SearchResult:
    """The trials of a search, and the best of them.

    `print(result)` shows the best trials.

    Attributes:
        search: Name of the search.
        trials: The `TrialResult`s, in the order in which they were proposed.
    """

    def __init__(self, search: str, trials: list[TrialResult], setting: Setting):
        self.search = search
        self.trials = trials
        self._setting = setting

    @property
    def best(self) -> TrialResult:
        """The trial with the least score, among those trained for most epochs.

        Raises:
            ValueError: If all trials diverged.
        """
        sound = [trial for trial in self.trials if trial.status == FINISHED]
        if not sound:
            raise ValueError(
                f"All trials of {self.search} diverged, so that none is the best. Use "
                "a smaller learning rate, or search in narrower `ranges`. Received: "
                f"{len(self.trials)} trials"
            )
        epochs = max(trial.epochs for trial in sound)
        whole = [trial for trial in sound if trial.epochs == epochs]
        return min(whole, key=lambda trial: trial.score)

    @property
    def best_values(self) -> dict[str, Any]:
        """The hyperparameters of the best trial by name: numbers, or nested lists."""
        return dict(self.best.values)

    @property
    def best_score(self) -> float:
        """The score of the best trial: its validation loss."""
        return self.best.score

    @property
    def steps(self) -> int:
        """Number of training steps of all trials."""
        return sum(trial.steps for trial in self.trials)

    @property
    def seconds(self) -> float:
        """Time of all trials added up, in seconds, whatever ran at the same time."""
        return sum(trial.seconds for trial in self.trials)

    def table(self) -> list[dict[str, Any]]:
        """Return a dict for every trial, such as `pandas.DataFrame` takes.

        The keys are "number", the names of the hyperparameters, "score", "status",
        "epochs", "steps" and "seconds", sums "total_steps" and "total_seconds" up to
        and with the trial, and the names of other losses and metrics.
        """
        rows, steps, seconds = [], 0, 0.0
        for trial in self.trials:
            steps, seconds = steps + trial.steps, seconds + trial.seconds
            rows.append(
                {
                    "number": trial.number,
                    **trial.values,
                    "score": trial.score,
                    "status": trial.status,
                    "epochs": trial.epochs,
                    "steps": trial.steps,
                    "seconds": trial.seconds,
                    "total_steps": steps,
                    "total_seconds": seconds,
                    **trial.losses,
                }
            )
        return rows

    def best_so_far(
        self, by: str = "steps", every_epoch: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how the best score fell while trials were trained.

        Args:
            by: "steps" or "seconds": what is counted, added up over the trials.
                Defaults to "steps".
            every_epoch: Whether the validation loss after every epoch counts, and not
                the score of a whole trial alone. Defaults to `False`.

        Returns:
            Two arrays of one length: steps or seconds so far, and the least score until
            then; infinite as long as all trials have diverged.

        Raises:
            ValueError: If `by` is something else.
        """
        check_choice(by, "by", ("steps", "seconds"))
        spent, scores, before = [], [], 0.0
        for trial in self.trials:
            cost = float(getattr(trial, by))
            curve = trial.validation if every_epoch else [trial.score]
            spent += [before + cost * (i + 1) / len(curve) for i in range(len(curve))]
            scores += [loss if math.isfinite(loss) else math.inf for loss in curve]
            before += cost
        best = np.minimum.accumulate(np.asarray(scores, "float64"))
        return np.asarray(spent, "float64"), best

    def fit_best(
        self, seed: int | None = None, epochs: int | None = None
    ) -> BilevelModel:
        """Train from scratch with the hyperparameters of the best trial.

        Args:
            seed: Seed of the training. Defaults to `None`: that of the first execution
                of the trial, which gives the network of the trial again (of Hyperband,
                if it was not trained on in parts).
            epochs: Number of epochs. Defaults to `None`: that of the search.

        Returns:
            The trained model, compiled, with these hyperparameters. `to_keras()` makes
            a plain Keras model of it. A later `fit` would tune nothing.

        Raises:
            ValueError: If all trials diverged, or a number is not whole.
        """
        best = self.best
        seed = best.seeds[0] if seed is None else check_count(seed, "seed", 0)
        epochs = self._setting.epochs if epochs is None else epochs
        check_count(epochs, "epochs", 1)
        return Trainer(self._setting).train_alone(best.values, seed, epochs)[0]

    def __repr__(self):
        return f"<SearchResult of {self.search}, {len(self.trials)} trials>"

    def __str__(self):
        diverged = sum(trial.status != FINISHED for trial in self.trials)
        lines = [
            f"{self.search}: {len(self.trials)} trials, {self.steps} steps, "
            f"{self.seconds:.1f} s" + (f", {diverged} diverged" if diverged else "")
        ]
        for trial in sorted(self.trials, key=lambda trial: trial.score)[:5]:
            shown = ", ".join(f"{n}={_show(v)}" for n, v in trial.values.items())
            lines.append(f"  {trial.score:.5g}  trial {trial.number}: {shown}")
        return "\n".join(lines)


def _show(value):
    return f"{value:.4g}" if isinstance(value, (int, float)) else "[…]"
