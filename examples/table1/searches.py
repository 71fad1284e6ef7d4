"""Searches: their points, and what they have found after a budget."""

import dataclasses
import math

import numpy as np

import bilevel_tf as bt

from .measures import final

# Fixed, so that all machines draw the same points.
POINTS_SEED = 7
NAMES = ("random",)
# Plain steps that one step of a fit with a tuning method is counted as.
STEP_COST = 2.2
# Budgets in fits of Δ-STN; the last is the whole search.
BUDGETS = {"equal compute": 1, "ten times": 10, "all points": math.inf}


@dataclasses.dataclass
class Trial:
    """A point of a search, and its records by seed."""

    values: tuple
    records: dict

    def loss(self, seeds):
        """Return the mean final validation loss over the first seeds."""
        return float(np.mean([final(self.records[s], "val_loss") for s in seeds]))


def draw_points(problem, count):
    """Return points of a random search, a list of dicts from names to values."""
    rng = np.random.default_rng(POINTS_SEED)
    scales = problem.scales()
    return [{n: draw(s, rng) for n, s in scales.items()} for _ in range(count)]


def draw(scale, rng):
    """Draw a number from a range, uniformly or uniformly in its logarithm."""
    ends = scale.low, scale.high
    if isinstance(scale, bt.LogUniform):
        return float(np.exp(rng.uniform(*np.log(ends))))
    return float(rng.uniform(*ends))


def run_search(table, name, args, seeds):
    """Train all points of a search, then what it has chosen on all seeds.

    Args:
        table: The `Table` that trains.
        name: Name of the search.
        args: Arguments of the command `run`.
        seeds: Seeds of the table.
    """
    trials = []
    for index, point in enumerate(draw_points(table.problem, args.search_points)):
        values, of = tuple(point.items()), f"{name} {index}"
        records = {
            seed: table.run_point(seed, values, of, turn=index)
            for seed in range(args.search_seeds)
        }
        trials.append(Trial(values, records))
    if any(record is None for trial in trials for record in trial.records.values()):
        print("Points are missing: run again when all parts are there.", flush=True)
        return
    for index in sorted(set(choose(trials).values())):
        for seed in seeds:
            table.run_point(seed, trials[index].values, f"{name} {index}")


def read_trials(records, name):
    """Return the trials of a search, in order, from the records of a problem."""
    trials = {}
    for record in records.values():
        run = record["run"]
        search, _, index = (run.of or "").rpartition(" ")
        if search == name and run.row == "point":
            trial = trials.setdefault(int(index), Trial(run.initial, {}))
            trial.records[run.seed] = record
    return [trials[index] for index in sorted(trials)]


def search_seeds(trials):
    """Return the seeds that all points of a search have."""
    return sorted(set.intersection(*(set(trial.records) for trial in trials)))


def choose(trials):
    """Return the index of the chosen point by budget.

    Points are chosen by their mean final validation loss over the seeds that all
    points have.
    """
    seeds = search_seeds(trials)
    losses = [trial.loss(seeds) for trial in trials]
    chosen = {}
    for budget, fits in BUDGETS.items():
        count = min(max(1, fits * STEP_COST / len(seeds)), len(trials))
        chosen[budget] = int(np.argmin(losses[: int(count)]))
    return chosen


def search_cost(trials, key):
    """Return the total steps or seconds of a search."""
    seeds = search_seeds(trials)
    return sum(trial.records[seed][key][-1] for trial in trials for seed in seeds)
