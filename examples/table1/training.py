"""One run: train, log, and give back everything."""

import gc
import inspect
import json
import resource
import shutil
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from bilevel_tf.search.held import HeldHyperparameters

from .expressions import make
from .problems import PROBLEMS

# As T_train of the methods, in whose blocks `BilevelModel` takes its steps; for fixed
# hyperparameters too, so that the seconds compare.
STEPS_PER_EXECUTION = 5
EVALUATION_BATCH = 2000
LOGGED = (
    "epoch", "steps", "seconds", "cpu_seconds", "val_loss", "test_loss",
    "hyperparameters", "sigma",
)  # fmt: skip


def train(run, data, folder):
    """Train one run.

    Args:
        run: The `Run`.
        data: The `Data` of its problem.
        folder: Folder in which a long run is saved until it ends.

    Returns:
        A record: a dict of lists over evaluations under the names `LOGGED`, with the
        last hyperparameters, the peak of memory and, if the run failed, the error.
    """
    problem = PROBLEMS[run.problem]
    keras.utils.set_random_seed(run.seed)
    model = problem.make_model(
        data.train[0].shape[1:],
        run.scale,
        dict(run.initial),
        perturbation_scale=run.sigma,
        learn_perturbation_scale=run.learn_sigma,
    )
    compile_model(model, problem, run)
    unfinished = place_unfinished(run, folder)
    log = Log(problem, data, unfinished if problem.long else None)
    callbacks = [log]
    if problem.long:
        callbacks.append(Backup(log, unfinished))
    error = fit(
        model,
        run,
        data,
        batch_size=problem.batch_size,
        epochs=run.epochs,
        callbacks=callbacks,
        verbose=0,
    )
    logged = {key: [entry[key] for entry in log.entries] for key in LOGGED}
    return {**logged, **error, "peak_mib": peak_memory()}


def fit(model, run, data, **arguments):
    """Fit; return a dict with the error if the run failed, else an empty one."""
    if run.method is None:
        # Not the model's own `fit`, which tunes.
        arguments["callbacks"].append(keras.callbacks.TerminateOnNaN())
        history = keras.Model.fit(model, *data.train, **arguments).history
        sound = np.isfinite(history["loss"]).all()
        return {} if sound else {"error": "the loss became NaN or infinite"}
    arguments |= outer_arguments(run, data)
    try:
        model.fit(*data.train, **arguments)
    except FloatingPointError as error:
        return {"error": str(error)}
    return {}


def peak_memory():
    """Return the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def forget_unfinished(run, folder):
    """Delete what was saved of a run, once its record is written."""
    shutil.rmtree(place_unfinished(run, folder), ignore_errors=True)


def place_unfinished(run, folder):
    """Return the folder in which a long run is saved until it ends."""
    return folder / "unfinished" / run.digest


def free_memory():
    """Let go of the models of earlier runs."""
    keras.backend.clear_session()
    gc.collect()


def compile_arguments(problem):
    """Return the arguments of `compile` that all networks of a problem share."""
    return {
        "optimizer": problem.optimizer(),
        "loss": problem.loss(),
        "steps_per_execution": STEPS_PER_EXECUTION,
        "jit_compile": False,
    }


def compile_model(model, problem, run):
    """Compile a `BilevelModel` for a run, which may hold the hyperparameters."""
    method = HeldHyperparameters(STEPS_PER_EXECUTION)
    if run.method is not None:
        method = make(run.method, "method")
    arguments = {**compile_arguments(problem), "method": method}
    hyper_optimizer = None
    if run.hyper_optimizer is not None:
        hyper_optimizer = make(run.hyper_optimizer, "optimizer")
    if run.hyper_learning_rate is not None:
        if hyper_optimizer is None:
            # Only `compile` knows the library's default.
            model.compile(**arguments)
            hyper_optimizer = model.hyper_optimizer
        hyper_optimizer = with_rate(hyper_optimizer, run.hyper_learning_rate)
    model.compile(**arguments, hyper_optimizer=hyper_optimizer)


def with_rate(optimizer, rate):
    """Return an optimizer like another with another initial learning rate."""
    config = optimizer.get_config()
    schedule = config["learning_rate"]
    if isinstance(schedule, dict):
        schedule["config"]["initial_learning_rate"] = rate
    else:
        config["learning_rate"] = rate
    return type(optimizer).from_config(config)


def outer_arguments(run, data):
    """Return the arguments of `fit` that outer steps need."""
    # The log evaluates, in larger batches than outer steps have.
    never = {"validation_data": data.valid, "validation_freq": run.epochs + 1}
    if run.outer_batch_size is None:
        return never
    known = inspect.signature(bt.BilevelModel.fit).parameters
    name = "outer_batch_size"
    name = name if name in known else "validation_batch_size"
    return {**never, name: run.outer_batch_size}


def to_lists(values):
    """Return a dict of numbers or nested lists."""
    return {name: np.asarray(value).tolist() for name, value in values.items()}


class Log(keras.callbacks.Callback):
    """Evaluates after epochs, and keeps what it has found.

    Seconds are those of `fit` from its start, tracing included, without evaluations and
    backups.

    Args:
        problem: The `Problem`.
        data: The `Data`.
        folder: Folder in which entries are kept, so that a run that was stopped has its
            history; `None` for none.
    """

    def __init__(self, problem, data, folder=None):
        super().__init__()
        self.entries = []
        self._problem = problem
        self._data = data
        self._path = folder and folder / "log.jsonl"
        self._paused = np.zeros(2)

    def on_train_begin(self, logs=None):
        self._start = clocks()
        self._begun = False
        loss = self._problem.loss()

        @tf.function(autograph=False, reduce_retracing=True)
        def evaluate(x, y):
            return loss(y, self.model(x, training=False))

        self._evaluate = evaluate

    def on_epoch_begin(self, epoch, logs=None):
        if self._begun:
            return
        self._begun = True
        if self._path and self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            entries = [json.loads(line) for line in lines if line.endswith("}")]
            self.entries = [entry for entry in entries if entry["epoch"] <= epoch]
        if self.entries:
            last = self.entries[-1]
            self._start = self._start - [last["seconds"], last["cpu_seconds"]]

    def on_epoch_end(self, epoch, logs=None):
        taken = clocks() - self._start - self._paused
        every, last = self._problem.evaluate_every, self.params["epochs"]
        if (epoch + 1) % every and epoch + 1 < last:
            return
        with self.paused():
            seconds, cpu_seconds = (round(float(each), 3) for each in taken)
            steps = -(-len(self._data.train[0]) // self._problem.batch_size)
            entry = {
                "epoch": epoch + 1,
                "steps": (epoch + 1) * steps,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "val_loss": self._mean_loss(*self._data.valid),
                "test_loss": self._mean_loss(*self._data.test),
                **self._read_hyperparameters(),
            }
            self.entries.append(entry)
            self._keep(entry)

    def paused(self):
        """Return a context whose seconds do not count."""
        return Pause(self._paused)

    def _mean_loss(self, x, y):
        starts = range(0, len(x), EVALUATION_BATCH)
        parts = [slice(start, start + EVALUATION_BATCH) for start in starts]
        losses = [float(self._evaluate(x[part], y[part])) for part in parts]
        return float(np.average(losses, weights=[len(x[part]) for part in parts]))

    def _read_hyperparameters(self):
        space = self.model.hyperparameters
        return {
            "hyperparameters": to_lists(space.values()),
            "sigma": to_lists(space.perturbation_scales()),
        }

    def _keep(self, entry):
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


class Backup(keras.callbacks.BackupAndRestore):
    """Saves after every epoch, in time that the log does not count.

    Args:
        log: The `Log`.
        folder: Folder of the backup.
    """

    def __init__(self, log, folder):
        super().__init__(
            folder / "backup", double_checkpoint=True, delete_checkpoint=False
        )
        self._log = log

    def on_epoch_end(self, epoch, logs=None):
        with self._log.paused():
            super().on_epoch_end(epoch, logs)


class Pause:
    """Adds the seconds of a `with` block to an array of wall and processor time."""

    def __init__(self, total):
        self._total = total

    def __enter__(self):
        self._start = clocks()

    def __exit__(self, *error):
        self._total += clocks() - self._start


def clocks():
    """Return wall and processor time in seconds."""
    return np.array([time.perf_counter(), time.process_time()])
