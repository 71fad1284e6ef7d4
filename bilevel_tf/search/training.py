"""Trials are trained here: a network at fixed hyperparameters, as Keras would."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bilevel_tf.search.building import build_model, judge_name, recompile
from bilevel_tf.search.held import HeldHyperparameters
from bilevel_tf.search.setting import Setting
from bilevel_tf.search.trial import DIVERGED, FINISHED, Proposal, TrialResult
from bilevel_tf.training.bilevel_model import BilevelModel
from bilevel_tf.training.conversion import layer_state
from bilevel_tf.training.fitting.rounds import Progress


class Trainer:
    """Trains trials one after the other, all in one model.

    A new model is built for every execution, which gives the initial weights and the
    states of random generators. These are copied into the model that was traced first,
    because tracing again would take longer than the training of a small network and
    leaves memory behind.

    Args:
        setting: What is the same in all trials.
    """

    def __init__(self, setting: Setting):
        self.setting = setting
        self._model: BilevelModel | None = None

    def train(
        self, number: int, proposal: Proposal, values: Mapping[str, Any]
    ) -> TrialResult:
        """Train a trial.

        Args:
            number: Its number.
            proposal: What the search proposed.
            values: The hyperparameters by name.
        """
        start, setting = time.perf_counter(), self.setting
        runs = []
        for seed in setting.seeds:
            model = self.start(seed, values)
            if proposal.parent is not None:
                self._load(model, proposal.parent, seed)
            runs.append(self._fit(model, proposal, seed))
            if setting.folder is not None:
                self._save(model, number, seed)
        in_force = model.hyperparameters.values()
        return TrialResult(
            number=number,
            values={n: np.asarray(v).tolist() for n, v in in_force.items()},
            **_judge(runs, setting.score),
            epochs=proposal.epochs,
            initial_epoch=proposal.initial_epoch,
            parent=proposal.parent,
            steps=sum(run.steps for run in runs),
            seconds=time.perf_counter() - start,
            seeds=setting.seeds,
            point=proposal.point,
            place=proposal.place,
        )

    def train_alone(
        self, values: Mapping[str, Any], seed: int, epochs: int
    ) -> tuple[BilevelModel, "Run"]:
        """Train a new model, which belongs to the caller.

        Args:
            values: The hyperparameters by name.
            seed: The seed.
            epochs: Number of epochs.

        Returns:
            The model and its losses.
        """
        self._model = None
        model = self.start(seed, values)
        self._model = None
        return model, self._fit(model, Proposal((), epochs), seed)

    def start(self, seed: int, values: Mapping[str, Any]) -> BilevelModel:
        """Return a model with new weights, which holds these hyperparameters.

        Args:
            seed: The seed of the initial weights.
            values: The hyperparameters by name.
        """
        new = build_model(self.setting.build, seed)
        if self._model is None or not _adopt(self._model, new):
            recompile(new, HeldHyperparameters(new.steps_per_execution))
            self._model = new
        # The traced function holds this object.
        vars(self._model.progress).update(vars(Progress()))
        self._model.hyperparameters.assign(values)
        return self._model

    def _fit(self, model: BilevelModel, proposal: Proposal, seed: int) -> "Run":
        setting = self.setting
        x, y, weight = setting.training
        keras.utils.set_random_seed(_seed_at(seed, proposal.initial_epoch))
        watch = _Watch(judge_name(model))
        # Not its own `fit`, which tunes.
        keras.Model.fit(
            model,
            x,
            y,
            sample_weight=weight,
            batch_size=setting.batch_size,
            initial_epoch=proposal.initial_epoch,
            epochs=proposal.epochs,
            validation_data=setting.validation,
            verbose=0,
            callbacks=[watch],
        )
        losses = dict(watch.last)
        if setting.test is not None and not watch.diverged:
            losses |= evaluate_test(model, setting)
        return Run(watch.judged, losses, model.progress.inner_steps, watch.diverged)

    def _load(self, model, number, seed):
        path = self._path_of(number, seed)
        if not path.exists():
            raise ValueError(
                f"The state of trial {number}, which is to be trained on, is missing. "
                "Search again in another `directory`. "
                f"Received: no file '{path}'"
            )
        with np.load(path) as stored:
            arrays = [stored[name] for name in stored.files]
        for variable, array in zip(_list_state(model), arrays, strict=True):
            variable.assign(array)

    def _save(self, model, number, seed):
        arrays = [keras.ops.convert_to_numpy(v) for v in _list_state(model)]
        path = self._path_of(number, seed)
        unfinished = path.with_suffix(".tmp.npz")
        np.savez(unfinished, *arrays)
        unfinished.replace(path)

    def _path_of(self, number, seed):
        return pathlib.Path(str(self.setting.folder)) / f"state-{number}-{seed}.npz"


@dataclasses.dataclass
class Run:
    """One training.

    Attributes:
        judged: The loss that judges, after each epoch.
        losses: Losses and metrics after the last epoch, by name.
        steps: Number of training steps.
        diverged: Whether a loss became NaN or infinite.
    """

    judged: list[float]
    losses: dict[str, float]
    steps: int
    diverged: bool


class _Watch(keras.callbacks.Callback):
    """Keeps the losses of epochs, and stops a training that diverges."""

    def __init__(self, judge: str):
        super().__init__()
        self.judged: list[float] = []
        self.last: dict[str, float] = {}
        self.diverged = False
        self._judge = judge

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Note the losses."""
        self.last = {name: float(value) for name, value in (logs or {}).items()}
        self.judged.append(self.last[self._judge])
        sound = [self.last.get("loss", 0.0), self.judged[-1]]
        if not np.all(np.isfinite(sound)):
            self.diverged = True
            self.model.stop_training = True


def evaluate_test(model: BilevelModel, setting: Setting) -> dict[str, float]:
    """Return losses and metrics on the test data, named "test_…"."""
    x, y, weight = setting.test or (None, None, None)
    found = model.evaluate(
        x,
        y,
        sample_weight=weight,
        batch_size=setting.batch_size,
        verbose=0,
        return_dict=True,
    )
    return {f"test_{name}": float(value) for name, value in found.items()}


def _judge(runs: list[Run], score: str) -> dict[str, Any]:
    """What the runs of a trial say together."""
    diverged = any(run.diverged for run in runs)
    epochs = min(len(run.judged) for run in runs)
    curves = np.asarray([run.judged[:epochs] for run in runs], "float64")
    curve = curves.mean(0)
    reached = [curve[-1] if score == "final" else np.min(curve)]
    names = [n for n in runs[0].losses if all(n in run.losses for run in runs)]
    return {
        "score": math.inf if diverged else float(reached[0]),
        "status": DIVERGED if diverged else FINISHED,
        "validation": [float(loss) for loss in curve],
        "losses": {n: float(np.mean([r.losses[n] for r in runs])) for n in names},
    }


def _list_state(model):
    """The variables that training changes."""
    own = layer_state.graph_variables(model)
    return [*own, *model.optimizer.variables]


def _adopt(model: BilevelModel, new: BilevelModel) -> bool:
    """Give a model the state of a new one, or return `False` if they differ.

    Args:
        model: The model that has been traced.
        new: A new one.
    """
    ours, theirs = _list_state(model), _list_state(new)
    if new is model or [_describe(v) for v in ours] != [_describe(v) for v in theirs]:
        return False
    for mine, their in zip(ours, theirs, strict=True):
        mine.assign(their)
    return True


def _describe(variable):
    return tuple(variable.shape), str(variable.dtype)


def _seed_at(seed: int, initial_epoch: int) -> int:
    """The seed of what `fit` draws: another one if training is gone on with."""
    if not initial_epoch:
        return seed
    sequence = np.random.SeedSequence([seed, initial_epoch])
    return int(sequence.generate_state(1)[0])
