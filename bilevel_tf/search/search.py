"""What all searches have in common."""

import abc
import contextlib
import dataclasses
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from bilevel_tf._arguments import check_choice, check_count
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.search.journal import Journal
from bilevel_tf.search.loop import Loop
from bilevel_tf.search.plan import Plan, Turn
from bilevel_tf.search.progress_bar import ProgressBar
from bilevel_tf.search.result import SearchResult
from bilevel_tf.search.setting import Setting, make_setting
from bilevel_tf.search.training import Trainer
from bilevel_tf.search.trial import DIVERGED, TrialResult
from bilevel_tf.search.workers import start_workers
from bilevel_tf.training.bilevel_model import BilevelModel


class Search(abc.ABC):
    """Base class of searches, which say how points are chosen.

    Args:
        trials: Number of trials, or `None` for as many as there are.
        budget_steps: Number of training steps of all trials together, or `None`.
        ranges: Dict from names to (low, high), or `None`.
    """

    def __init__(
        self,
        trials: int | None,
        budget_steps: int | None,
        ranges: dict[str, Any] | None,
    ):
        for name, value in (("trials", trials), ("budget_steps", budget_steps)):
            if value is not None:
                check_count(value, name, 1)
        self.trials = trials
        self.budget_steps = budget_steps
        self.ranges = ranges

    def _default_trials(self, count: int) -> None:
        """Set a number of trials if neither that nor a budget is given."""
        if self.trials is None and self.budget_steps is None:
            self.trials = count

    @abc.abstractmethod
    def plan(
        self, space: HyperparameterSpace, epochs: int, seed: int, workers: int
    ) -> Plan:
        """Return what proposes the trials.

        Args:
            space: The hyperparameters.
            epochs: Number of epochs of a whole training.
            seed: Seed of the points.
            workers: Number of trials that are trained at once.
        """

    def describe(self) -> dict[str, Any]:
        """Return what makes this search differ from others, for a file."""
        return {"search": type(self).__name__}

    def run(
        self,
        build: Callable[[], BilevelModel] | BilevelModel,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any,
        test_data: Any = None,
        sample_weight: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        executions_per_trial: int = 1,
        score: str = "final",
        seed: int = 0,
        directory: Any = None,
        workers: int = 1,
        verbose: Any = "auto",
    ) -> SearchResult:
        """Train all trials.

        Every trial trains the network as Keras would with these hyperparameters, with
        the optimizer, loss and metrics that the model is compiled with. Its method is
        not used. The score is the loss by which methods judge too: the `outer_loss`,
        or else the loss, on the validation data, without weight penalties.

        The seeds of Python, NumPy and TensorFlow are set in every trial.

        Args:
            build: Function without arguments that returns a new `BilevelModel`,
                compiled; its objective must be `ValidationLoss`. Or such a model, from
                whose config new ones are made.
            x: Training inputs: an array, `[n, ...]`, or a structure of arrays.
            y: Targets, `[n, ...]`. Defaults to `None`.
            validation_data: (x, y) or (x, y, sample_weight) of arrays, by which trials
                are judged.
            test_data: The same, of data on which every trial is evaluated, under names
                that begin with "test_". Nothing is chosen by it. Defaults to `None`.
            sample_weight: Weights of the training examples, `[n]`. Defaults to `None`.
            epochs: Number of epochs of a whole training. Defaults to 1, as in Keras.
            batch_size: Number of examples in a batch. Defaults to 32, as in Keras.
            executions_per_trial: Number of trainings of every trial, with seeds `seed`,
                `seed + 1` and so on. The score is their mean. Defaults to 1.
            score: "final", the loss after the last epoch; or "best", the least after
                any epoch. Defaults to "final", because a network is used as training
                leaves it.
            seed: Seed of the points and of trainings. All trials have the same seeds of
                training, so that they differ in their hyperparameters alone. Defaults
                to 0.
            directory: Folder in which every finished trial is written down, as a line
                of `search.jsonl`. A search that was killed goes on from it, and ends as
                it would have ended; more trials than before may be asked for. Defaults
                to `None`: nothing is written.
            workers: Number of processes in which trials are trained. More than 1 needs
                a `build` that other processes can import, and a script whose own work
                is under `if __name__ == "__main__":`. Defaults to 1: this process.
            verbose: 0 for no output, 1 for a progress bar, 2 for a line at the end.
                Defaults to "auto", which means 1.

        Returns:
            The `SearchResult`.

        Raises:
            TypeError: If `build` does not build a `BilevelModel`, or data are not
                arrays.
            ValueError: If the model is not compiled, has been trained or has another
                objective; if a hyperparameter cannot be searched; if data do not fit;
                if a number is out of range; if the budget is too small for a trial; or
                if the file in `directory` is of another search.

        Warns:
            RuntimeWarning: If a trial diverges. It counts as the worst.
        """
        setting, model = make_setting(
            build,
            (x, y, sample_weight),
            validation_data,
            test_data,
            epochs=epochs,
            batch_size=batch_size,
            executions=executions_per_trial,
            seed=seed,
            score=check_choice(score, "score", ("final", "best")),
        )
        check_count(workers, "workers", 1)
        return self.run_in(setting, model.hyperparameters, directory, workers, verbose)

    def run_in(
        self,
        setting: Setting,
        space: HyperparameterSpace,
        directory: Any,
        workers: int,
        verbose: Any,
    ) -> SearchResult:
        """Train all trials in a setting that has been checked.

        Args:
            setting: What is the same in all trials.
            space: The hyperparameters.
            directory, workers, verbose: As in `run`.
        """
        plan = self.plan(space, setting.epochs, setting.seed, workers)
        self._check_budget(plan, setting)
        journal = None
        finished: dict[int, TrialResult] = {}
        if directory is not None:
            heading = {**self.describe(), **setting.describe(), **plan.describe()}
            path = pathlib.Path(directory) / "search.jsonl"
            journal = Journal(path, heading)
            read = map(TrialResult.from_record, journal.records)
            finished = {trial.number: trial for trial in read}
        bar = ProgressBar(self._count_trials(plan), verbose, finished.values())

        def note(trial: TrialResult) -> None:
            if trial.status == DIVERGED:
                _warn_of_divergence(trial)
            if journal is not None:
                journal.add(trial.to_record())
            bar.add(trial)

        loop = Loop(plan, setting, self.trials, self.budget_steps, finished, note)
        with _state_folder(plan, directory) as folder:
            trainer = Trainer(dataclasses.replace(setting, folder=folder))
            with start_workers(trainer, workers) as executor:
                trials = loop.run(executor, workers)
            if folder is not None and loop.exhausted:
                shutil.rmtree(folder, ignore_errors=True)
        bar.close()
        return SearchResult(type(self).__name__, trials, setting)

    def _check_budget(self, plan, setting):
        first = plan.propose(0, [])
        steps = 0 if isinstance(first, Turn) else setting.count_steps(first)
        if self.budget_steps is not None and steps > self.budget_steps:
            raise ValueError(
                "`budget_steps` must have room for one trial. Give a larger one, or "
                f"fewer epochs. Received: budget_steps={self.budget_steps}, and a "
                f"trial takes {steps} steps"
            )

    def _count_trials(self, plan):
        """The number of trials if it is known, which it is not with a budget."""
        counts = [count for count in (self.trials, plan.total) if count is not None]
        known = counts and self.budget_steps is None
        return min(counts) if known else None


def _warn_of_divergence(trial: TrialResult) -> None:
    shown = ", ".join(f"{name}={value}" for name, value in trial.values.items())
    warnings.warn(
        f"Trial {trial.number} diverged: its loss became NaN or infinite in epoch "
        f"{trial.initial_epoch + len(trial.validation)}. It counts as the worst. "
        f"Received: {shown[:300]}",
        RuntimeWarning,
        stacklevel=6,  # the call of `run`
    )


@contextlib.contextmanager
def _state_folder(plan: Plan, directory: Any) -> Iterator[str | None]:
    """Give the folder for states of training that others go on with, if any do."""
    if not plan.goes_on:
        yield None
    elif directory is None:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    else:
        states = pathlib.Path(directory) / "states"
        states.mkdir(exist_ok=True)
        yield str(states)
