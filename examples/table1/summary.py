"""Tables in Markdown: losses of all rows, paired differences, and costs."""

import numpy as np

from . import searches
from .measures import best, final, mean_and_error, reach

REFERENCES = ("random, all points", "bayes, all points", "STN", "Δ-STN (old default)")


def summarize(results):
    """Return the tables of a problem.

    Args:
        results: The `Results`.
    """
    parts = []
    for title, records in group_by_size(results.read()).items():
        rows = gather_rows(records)
        parts += [f"## {title}", losses_table(rows, records)]
        parts += [differences_table(rows, reference) for reference in REFERENCES]
        found = searches.read_searches(records)
        parts += [reach_table(rows, found[name], name) for name in found]
    return "\n\n".join(part for part in parts if part)


def group_by_size(records):
    """Return records by what cannot be compared: epochs, scale and split."""
    groups = {}
    for key, record in records.items():
        run = record["run"]
        title = f"{run.problem}, {run.epochs} epochs"
        title += f", scale {run.scale:g}" if run.scale != 1 else ""
        title += f", split {run.split}" if run.split else ""
        groups.setdefault(title, {})[key] = record
    return groups


def gather_rows(records):
    """Return the rows of the table: dicts from seeds to records, by label."""
    rows, points = {}, {}
    for record in records.values():
        run = record["run"]
        if run.row == "point":
            points.setdefault(run.initial, {})[run.seed] = record
            if run.of == "given":
                values = ", ".join(f"{value:.3g}" for _, value in run.initial)
                rows[f"at {values}"] = points[run.initial]
        elif run.row not in searches.SEARCHES:
            rows.setdefault(run.label, {})[run.seed] = record
    for name, found in searches.read_searches(records).items():
        for budget, values in searches.chosen_values(found).items():
            if values in points:
                rows[f"{name}, {budget}"] = points[values]
    return rows


def gather_retrained(records, label):
    """Return the records of the points that retrain a row, by seed."""
    return {
        record["run"].seed: record
        for record in records.values()
        if record["run"].of == label
    }


def losses_table(rows, records):
    """Return the table of losses."""
    lines = []
    for label, by_seed in rows.items():
        retrained = gather_retrained(records, label)
        failed = sum("error" in record for record in by_seed.values())
        seeds = f"{len(by_seed)}" + (f" ({failed} failed)" if failed else "")
        lines.append(
            [
                label,
                seeds,
                show([best(r) for r in by_seed.values()]),
                show([final(r, "val_loss") for r in by_seed.values()]),
                show([final(r, "test_loss") for r in by_seed.values()]),
                show([final(r, "val_loss") for r in retrained.values()]),
                show([final(r, "test_loss") for r in retrained.values()]),
                show_hyperparameters(by_seed.values()),
                show([t for r in by_seed.values() for t in r["cpu_seconds"][-1:]], 1),
            ]
        )
    head = [
        "row", "seeds", "best validation", "final validation", "final test",
        "retrained validation", "retrained test", "λ at the end", "CPU seconds",
    ]  # fmt: skip
    return table(head, lines)


def differences_table(rows, reference):
    """Return the table of paired differences from a row, or `None` if it is absent."""
    if reference not in rows:
        return None
    lines = []
    for label, by_seed in rows.items():
        common = sorted(set(by_seed) & set(rows[reference]))
        if label == reference or not common:
            continue
        line = [label, str(len(common))]
        for key in ("val_loss", "test_loss"):
            ours, theirs = (
                [final(of_row[seed], key) for seed in common]
                for of_row in (by_seed, rows[reference])
            )
            differences = np.subtract(ours, theirs)
            mean, error = mean_and_error(differences)
            line += [show(differences), f"{mean / error:+.1f}" if error > 0 else "–"]
        lines.append(line)
    head = ["row", "seeds", "final validation", "in errors", "final test", "in errors"]
    return f"Paired differences from “{reference}”:\n\n{table(head, lines)}"


def reach_table(rows, found, name):
    """Return the table of costs until rows are as good as a whole search, or `None`."""
    of_search = rows.get(f"{name}, {searches.WHOLE}")
    if of_search is None:
        return None
    loss = np.mean([final(r, "val_loss") for r in of_search.values()])
    lines = []
    for label, by_seed in rows.items():
        if any(record["run"].method is None for record in by_seed.values()):
            continue
        line = [label]
        for key, cost in (("steps", searches.STEP_COST), ("cpu_seconds", 1.0)):
            total = searches.search_cost(found, key, list(of_search.values()))
            taken = [reach(record, loss, key) for record in by_seed.values()]
            reached = [each for each in taken if each is not None]
            line.append(show([cost * each / total for each in reached], 3))
        lines.append([*line, f"{len(reached)} of {len(by_seed)}"])
    run = found["run"]
    head = ["row", "steps", "CPU seconds", "seeds that reach it"]
    return (
        f"Cost until the validation loss is {loss:.4f}, which {name} search ends at, "
        f"as a share of its {run.points} points with {run.point_seeds} seeds each; a "
        f"step of a tuning method counts as {searches.STEP_COST} plain steps, and each "
        f"training of the search as long as one at the point that it chose:\n\n"
        f"{table(head, lines)}"
    )


def show(values, digits=4):
    """Return mean ± standard error as text."""
    if not len(values):
        return "–"
    mean, error = mean_and_error(values)
    shown = f"{mean:.{digits}f}"
    return shown if np.isnan(error) else f"{shown} ± {error:.{digits}f}"


def show_hyperparameters(records):
    """Return the means of the last hyperparameters as text."""
    last = [r["hyperparameters"][-1] for r in records if r["hyperparameters"]]
    if not last:
        return "–"
    return ", ".join(f"{np.mean([v[name] for v in last]):.2g}" for name in last[0])


def table(head, lines):
    """Return a Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
