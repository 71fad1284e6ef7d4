"""Searches, and what they have found after a budget."""

import functools
import math

import numpy as np

import bilevel_tf as bt

from .measures import LAST
from .problems import PROBLEMS
from .training import compile_arguments

SEARCHES = {"random": bt.search.RandomSearch, "bayes": bt.search.BayesianSearch}
# Plain steps that one step of a fit with a tuning method is counted as.
STEP_COST = 2.2
# Budgets in fits of Δ-STN; the last is the whole search.
BUDGETS = {"equal compute": 1, "ten times": 10, "all points": math.inf}
(*_, WHOLE) = BUDGETS


def search(run, data, folder, workers=1):
    """Search by `bilevel_tf.search`.

    Args:
        run: The `Run` of the search.
        data: The `Data`; test data are not used.
        folder: Folder in which the search writes its trials, so that it goes on if it
            was stopped.
        workers: Number of processes. Defaults to 1.

    Returns:
        A record: "trials", dicts with the values, the validation loss after each epoch,
        a mean over seeds, and the steps and seconds of all seeds.
    """
    problem = PROBLEMS[run.problem]
    shape = data.train[0].shape[1:]
    result = SEARCHES[run.row](run.points).run(
        functools.partial(build_model, run.problem, shape, run.scale),
        *data.train,
        validation_data=data.valid,
        epochs=run.epochs,
        batch_size=problem.batch_size,
        executions_per_trial=run.point_seeds,
        directory=folder / "unfinished" / run.digest,
        workers=workers,
        verbose=0,
    )
    names = "values", "validation", "steps", "seconds"
    return {
        "trials": [{n: getattr(trial, n) for n in names} for trial in result.trials]
    }


def build_model(name, shape, scale):
    """Return a compiled model; other processes can import this function."""
    problem = PROBLEMS[name]
    model = problem.make_model(shape, scale)
    model.compile(**compile_arguments(problem))
    return model


def read_searches(records):
    """Return the records of searches by name; of several the one with most points."""
    found = {}
    for record in records.values():
        name, points = record["run"].row, record["run"].points
        if name in SEARCHES and points > (
            found[name]["run"].points if name in found else 0
        ):
            found[name] = record
    return found


def trial_losses(record):
    """Return the final validation losses of the trials of a search."""
    losses = [np.mean(trial["validation"][-LAST:]) for trial in record["trials"]]
    return [float(loss) if math.isfinite(loss) else math.inf for loss in losses]


def choose(record):
    """Return the index of the trial that a search has chosen, by budget."""
    losses, chosen = trial_losses(record), {}
    for budget, fits in BUDGETS.items():
        count = min(fits * STEP_COST / record["run"].point_seeds, len(losses))
        chosen[budget] = int(np.argmin(losses[: max(1, int(count))]))
    return chosen


def chosen_values(record):
    """Return the values that a search has chosen, as pairs, by budget."""
    trials = record["trials"]
    return {b: tuple(trials[i]["values"].items()) for b, i in choose(record).items()}


def count_trainings(record):
    """Return how many networks a search has trained."""
    return len(record["trials"]) * record["run"].point_seeds


def search_cost(record, key, points):
    """Return the cost of a search, which traces its network once.

    Its own seconds are not used, because they have an evaluation after every epoch,
    which those of rows have not: each of its trainings counts as long as those of the
    points that it chose.

    Args:
        record: The record of the search.
        key: "steps", "seconds" or "cpu_seconds".
        points: Records of runs at the chosen points.
    """
    count = count_trainings(record)
    whole = np.mean([point[key][-1] for point in points])
    if key == "steps":
        return float(count * whole)
    first = np.mean([point[key][0] for point in points])
    later = (whole - first) / max(1, len(points[0][key]) - 1)
    tracing = max(0.0, first - later)
    return float(count * (whole - tracing) + tracing)
