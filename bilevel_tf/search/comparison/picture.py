"""The picture of a comparison."""

import importlib
from typing import Any

import numpy as np

from bilevel_tf.search.comparison.compared_run import ComparedRun

_LABELS = {"steps": "training steps", "seconds": "seconds"}


def draw(runs: dict[str, list[ComparedRun]], path: Any) -> Any:
    """Draw the best validation loss so far; see `ComparisonResult.plot`."""
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as missing:
        raise ImportError(
            f"`plot` needs Matplotlib: pip install matplotlib. Received: {missing}"
        ) from missing
    figure = figures.Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, by in zip(axes, _LABELS, strict=True):
        for name, group in runs.items():
            spent, mean, error = _average(group, by)
            (line,) = axis.step(spent, mean, where="post", label=name)
            axis.fill_between(
                spent,
                mean - error,
                mean + error,
                step="post",
                alpha=0.2,
                color=line.get_color(),
            )
        axis.set(xscale="log", xlabel=_LABELS[by])
        # Labels between the powers of ten would lie over each other.
        axis.xaxis.minorticks_off()
    axes[0].set_ylabel("best validation loss so far")
    axes[1].legend()
    if path is not None:
        figure.savefig(path)
    return figure


def _average(runs, by):
    """Mean over seeds of what was spent and of the best loss, and its error."""
    # A fit that diverged has fewer epochs.
    length = min(len(run.validation) for run in runs)
    spent = np.mean([getattr(run, by)[:length] for run in runs], 0)
    best = np.asarray([run.best_so_far[:length] for run in runs])
    # What is infinite is not drawn.
    best = np.where(np.isfinite(best), best, np.nan)
    error = np.zeros(length)
    if len(runs) > 1:
        error = np.std(best, 0, ddof=1) / np.sqrt(len(runs))
    return spent, np.mean(best, 0), error
