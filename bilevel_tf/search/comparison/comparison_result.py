"""What a comparison has found: numbers per row, a table, and a picture."""

import math
from typing import Any

import numpy as np

from bilevel_tf._arguments import check_choice
from bilevel_tf.search.comparison.compared_run import ComparedRun

_MEASURES = ("best", "final", "test", "retrained")


class ComparisonResult:
    """Fits and searches, side by side, over several seeds.

    `print(result)` shows the table.

    Attributes:
        runs: Dict from the names of rows to a `ComparedRun` per seed.
        searches: The names of those rows that are searches.
    """

    def __init__(self, runs: dict[str, list[ComparedRun]], searches: list[str]):
        self.runs = runs
        self.searches = searches

    def measure(self, row: str, of: str) -> np.ndarray:
        """Return a loss of a row, one number per seed.

        Args:
            row: Name of the row.
            of: "best", the least validation loss after any epoch; "final", that at the
                end (of a search, of its best trial); "test", the loss on test data at
                the end; or "retrained", the test loss (validation loss without test
                data) after training from scratch at what was found.

        Returns:
            An array `[seeds]`; infinite where a run diverged, NaN where there is no
            such loss.

        Raises:
            ValueError: If there is no such row or loss.
        """
        check_choice(of, "of", _MEASURES)
        check_choice(row, "row", list(self.runs))
        return np.asarray([_measure(run, of) for run in self.runs[row]], "float64")

    def difference(self, row: str, other: str, of: str = "test") -> tuple[float, float]:
        """Return the mean difference of two rows over the seeds, and its error.

        Args:
            row: Name of a row.
            other: Name of the row that is subtracted, seed by seed.
            of: The loss, as in `measure`. Defaults to "test".

        Returns:
            Mean and standard error of the paired differences; the error is NaN for one
            seed.
        """
        return mean_and_error(self.measure(row, of) - self.measure(other, of))

    def reaching(self, row: str, search: str, by: str = "steps") -> np.ndarray:
        """Return what a row costs until it is as good as a search, one per seed.

        Args:
            row: Name of the row.
            search: Name of a search. The final validation loss of its best trial is to
                be reached.
            by: "steps" or "seconds". Defaults to "steps".

        Returns:
            An array `[seeds]`, infinite where the loss was not reached.
        """
        check_choice(by, "by", ("steps", "seconds"))
        check_choice(row, "row", list(self.runs))
        check_choice(search, "search", self.searches)
        pairs = zip(self.runs[row], self.runs[search], strict=True)
        return np.asarray([one.cost_of(other.final, by) for one, other in pairs])

    def ratios(self, row: str, search: str, by: str = "steps") -> np.ndarray:
        """Return how many times less a row costs until it is as good as a search.

        Args:
            row: Name of the row.
            search: Name of a search.
            by: "steps" or "seconds". Defaults to "steps".

        Returns:
            Whole cost of the search over `reaching`, `[seeds]`; 0 where the search was
            not reached.
        """
        whole = [getattr(run, by)[-1] for run in self.runs[search]]
        return np.asarray(whole) / self.reaching(row, search, by)

    def table(self) -> list[dict[str, Any]]:
        """Return a dict for every row, such as `pandas.DataFrame` takes.

        The keys are "row", "seeds", and "best", "final", "test", "retrained", "steps"
        and "seconds" with means over seeds; with "_error" behind them, the standard
        errors of the losses. For every search, "steps_to NAME" has the mean number of
        steps until a fit reached it, "ratio_to NAME" the mean of `ratios`, both over
        seeds that did, and "reached NAME" how many did. What there is not is NaN.
        """
        return [self._row(name) for name in self.runs]

    def _row(self, name):
        runs = self.runs[name]
        row: dict[str, Any] = {"row": name, "seeds": len(runs)}
        for of in _MEASURES:
            row[of], row[f"{of}_error"] = mean_and_error(self.measure(name, of))
        for by in ("steps", "seconds"):
            row[by] = float(np.mean([getattr(run, by)[-1] for run in runs]))
        for search in self.searches:
            fit = name not in self.searches
            steps = self.reaching(name, search) if fit else np.zeros(0)
            reached = np.isfinite(steps)
            row[f"steps_to {search}"] = _mean(steps[reached])
            row[f"ratio_to {search}"] = (
                _mean(self.ratios(name, search)[reached]) if fit else math.nan
            )
            row[f"reached {search}"] = int(reached.sum()) if fit else math.nan
        return row

    def to_markdown(self) -> str:
        """Return the table in Markdown: means ± standard errors over the seeds."""
        head, *lines = self._cells()
        rule = ["---"] * len(head)
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))

    def __str__(self):
        lines = self._cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) for cell, width in zip(cells, widths, strict=True)
            ).rstrip()
            for cells in lines
        )

    def __repr__(self):
        return f"<ComparisonResult of {', '.join(self.runs)}>"

    def _cells(self):
        """The table as text, a list of cells per line."""
        rows = self.table()
        shown = [of for of in _MEASURES if not all(math.isnan(r[of]) for r in rows)]
        titles = {
            "best": "best validation",
            "final": "final validation",
            "test": "test",
            "retrained": "retrained",
        }
        head = ["", *(titles[of] for of in shown), "steps", "seconds"]
        head += [f"{what} {s}" for s in self.searches for what in ("steps to", "ratio")]
        lines = [head]
        for row in rows:
            cells = [row["row"]]
            cells += [_show(row[of], row[f"{of}_error"]) for of in shown]
            cells += [f"{row['steps']:.0f}", f"{row['seconds']:.1f}"]
            for search in self.searches:
                cells += _show_reaching(row, search)
            lines.append(cells)
        return lines

    def plot(self, path: Any = None) -> Any:
        """Draw the best validation loss so far against training steps and seconds.

        Lines are means over the seeds, and shades their standard errors. Matplotlib
        must be installed.

        Args:
            path: File to write, such as "comparison.png". Defaults to `None`: no file.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        from bilevel_tf.search.comparison.picture import draw

        return draw(self.runs, path)


def mean_and_error(numbers: np.ndarray) -> tuple[float, float]:
    """Return the mean, and its standard error; NaN for a single number."""
    numbers = np.asarray(numbers, "float64")
    if len(numbers) < 2 or not np.all(np.isfinite(numbers)):
        return float(np.mean(numbers)), math.nan
    error = np.std(numbers, ddof=1) / math.sqrt(len(numbers))
    return float(np.mean(numbers)), float(error)


def _measure(run, of):
    if of == "retrained":
        found = run.retrained or {}
        test = found.get("test")
        loss = found.get("validation") if test is None else test
    elif of == "test" and run.diverged:
        loss = math.inf
    else:
        loss = getattr(run, of)
    return math.nan if loss is None else loss


def _mean(numbers):
    return float(np.mean(numbers)) if len(numbers) else math.nan


def _show(mean, error):
    if math.isnan(mean):
        return "–"
    return f"{mean:.4g}" if math.isnan(error) else f"{mean:.4g} ± {error:.2g}"


def _show_reaching(row, search):
    """Steps and ratio until a search is reached, and by how many seeds if not all."""
    reached = row[f"reached {search}"]
    if isinstance(reached, float):
        return ["–", "–"]
    if not reached:
        return ["never", "–"]
    some = "" if reached == row["seeds"] else f" ({reached} of {row['seeds']})"
    steps, ratio = row[f"steps_to {search}"], row[f"ratio_to {search}"]
    return [f"{steps:.0f}{some}", f"{ratio:.3g}"]
