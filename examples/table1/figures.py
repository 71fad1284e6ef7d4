"""Figures 5 and 6: validation loss against time and steps, and schedules of λ."""

import matplotlib as mpl
import numpy as np

import bilevel_tf as bt

from . import searches
from .problems import PROBLEMS
from .summary import gather_rows, group_by_size

mpl.use("Agg")
import matplotlib.pyplot as plt


def draw(results, folder):
    """Draw the figures of a problem; return their paths.

    Args:
        results: The `Results`.
        folder: Folder in which the figures are written.
    """
    paths = []
    for title, records in group_by_size(results.read()).items():
        name = title.replace(", ", "_").replace(" ", "_")
        records = {k: record for k, record in records.items() if "error" not in record}
        rows = gather_rows(records)
        if not rows:
            continue
        rows = {label: list(by_seed.values()) for label, by_seed in rows.items()}
        for kind, draw_one in (("loss", draw_losses), ("schedule", draw_schedules)):
            figure = draw_one(rows, records)
            path = folder / f"{name}_{kind}.png"
            figure.suptitle(title)
            figure.tight_layout()
            figure.savefig(path, dpi=120)
            plt.close(figure)
            paths.append(path)
    return paths


def mean_over_seeds(records, read):
    """Return the mean of what `read` gives of records, over their common length."""
    lists = [read(record) for record in records]
    length = min(map(len, lists))
    return np.mean([each[:length] for each in lists], axis=0)


def is_tuned(records):
    """Return whether the runs of a row tune hyperparameters."""
    return all(record["run"].method for record in records)


def draw_losses(rows, records):
    """Draw the best validation loss so far against seconds and steps."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    labels = {"cpu_seconds": "CPU seconds", "steps": "plain training steps"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for name, of_row in rows.items():
            if not is_tuned(of_row) and name != "fixed":
                continue
            tuned = key == "steps" and is_tuned(of_row)
            factor = searches.STEP_COST if tuned else 1.0
            cost = factor * mean_over_seeds(of_row, lambda r, key=key: r[key])
            losses = mean_over_seeds(
                of_row, lambda r: np.minimum.accumulate(r["val_loss"])
            )
            axis.plot(cost, losses, label=name)
        for name, found in searches.read_searches(records).items():
            points = rows.get(f"{name}, {searches.WHOLE}")
            if points:
                draw_search(axis, found, name, searches.search_cost(found, key, points))
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.set_ylabel("best validation loss")
    axes[0].legend(fontsize=7)
    return figure


def draw_search(axis, found, name, cost):
    """Draw the best final validation loss of a search after each of its points."""
    losses = np.minimum.accumulate(searches.trial_losses(found))
    # All points take as many steps, and so about as long.
    costs = cost * np.arange(1, len(losses) + 1) / len(losses)
    axis.step(costs, losses, "--", where="post", label=name)


def draw_schedules(rows, records):
    """Draw the hyperparameters of all tuned rows against steps."""
    tuned = {name: of_row for name, of_row in rows.items() if is_tuned(of_row)}
    (problem,) = {record["run"].problem for record in records.values()}
    scales = PROBLEMS[problem].scales()
    figure, axes = plt.subplots(1, len(scales), figsize=(4 * len(scales), 4))
    for axis, name in zip(np.atleast_1d(axes), scales, strict=True):
        for label, of_row in tuned.items():
            values = mean_over_seeds(
                of_row, lambda r, name=name: [v[name] for v in r["hyperparameters"]]
            )
            steps = mean_over_seeds(of_row, lambda r: r["steps"])
            axis.plot(steps, values, label=label)
        found_by = searches.read_searches(records)
        for style, (search, found) in zip(("--", ":"), found_by.items(), strict=False):
            best = dict(searches.chosen_values(found)[searches.WHOLE])[name]
            axis.axhline(best, color="k", ls=style, label=search)
        if isinstance(scales[name], bt.LogUniform):
            axis.set_yscale("log")
        axis.set(title=name, xlabel="steps")
    np.atleast_1d(axes)[0].legend(fontsize=7)
    return figure
