"""The command line."""

import argparse
import dataclasses
import pathlib
import time

import numpy as np
import tensorflow as tf

from . import figures, searches, summary, training
from .expressions import spell_out
from .problems import PROBLEMS
from .results import Results
from .rows import ROWS, Row, Run
from .searches import SEARCHES


def parse_seeds(text):
    """Return the seeds of "3" or "0-7"."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def parse(argv=None):
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="table1", description="Compare one fit with a search."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train what is not there yet")
    others = [
        commands.add_parser("summary", help="print the tables"),
        commands.add_parser("figures", help="draw figures 5 and 6"),
    ]
    for command in (run, *others):
        command.add_argument("--problem", nargs="+", required=True, choices=PROBLEMS)
        command.add_argument(
            "--output", type=pathlib.Path, default=pathlib.Path("results/table1")
        )
    add_run_arguments(run)
    return parser.parse_args(argv)


def add_run_arguments(run):
    """Add what says which runs there are."""
    rows = (*ROWS, *SEARCHES)
    add = run.add_argument
    add("--rows", nargs="*", default=[], choices=rows, metavar="ROW", help=str(rows))
    add("--method", nargs="*", default=[], help="constructor calls, further rows")
    add("--seeds", nargs="+", type=parse_seeds, default=[[0]], help="such as 0-7 9")
    add("--part", type=parse_part, default=(0, 1), help="i/n: this share of the runs")
    add("--epochs", type=int, help="in place of the problem's")
    add("--scale", type=float, default=1.0, help="factor of all sizes")
    add("--tag", help="a word that makes these runs others")
    add("--split", type=int, default=0, help="which split of the data")
    add("--retrain", action="store_true", help="train last values from scratch")
    add("--search-points", type=int, default=30)
    add("--search-seeds", type=int, default=2, help="seeds per point, from 0")
    add("--workers", type=int, default=1, help="processes of a search")
    add("--point", nargs="+", help="one point: name=value for each hyperparameter")
    add("--hold-sigma", action="store_true", help="keep perturbation scales")
    add("--hyper-optimizer", help="a constructor call")
    add("--hyper-learning-rate", type=float)
    add("--outer-batch-size", type=int)
    add("--initial", nargs="+", help="one value for all, or name=value")
    add("--sigma", type=float, help="initial perturbation scale of all")


def parse_part(text):
    """Return i and n of "i/n"."""
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def read_values(problem, texts):
    """Return values by name from "value" or "name=value", as pairs."""
    values = {}
    for text in texts or ():
        name, found, value = text.rpartition("=")
        names = [name] if found else list(problem.scales())
        if not set(names) <= set(problem.scales()):
            raise ValueError(
                f"Values must be of {list(problem.scales())}. Received: {text!r}"
            )
        values.update({n: float(value) for n in names})
    return tuple(values.items())


class Table:
    """Trains the runs of a problem that are not there yet.

    Args:
        name: Name of the problem.
        args: Arguments of the command `run`.
    """

    def __init__(self, name, args):
        self.problem = PROBLEMS[name]
        self.results = Results(args.output, name)
        self._name = name
        self._args = args
        self._data = None
        self._seeds = [seed for seeds in args.seeds for seed in seeds]

    def run_all(self):
        """Train all rows, points and searches that the arguments name."""
        args = self._args
        rows = {name: ROWS[name] for name in args.rows if name in ROWS}
        rows |= {text: Row(text) for text in args.method}
        for name, row in rows.items():
            for seed in self._seeds:
                self._run_row(name, row, seed)
        if args.point:
            values = read_values(self.problem, args.point)
            if len(values) < len(self.problem.scales()):
                raise ValueError(
                    f"A point needs values of {list(self.problem.scales())}. "
                    f"Received: {args.point}"
                )
            for seed in self._seeds:
                self.run_point(seed, values, "given")
        for name in args.rows:
            if name in SEARCHES:
                self._run_search(name)

    def _run_row(self, name, row, seed):
        args = self._args
        batch = self.problem.batch_size if row.same_batch else None
        initial = read_values(self.problem, args.initial)
        run = self._make_run(name, seed, initial=initial)
        if row.method is not None:
            run = dataclasses.replace(
                run,
                method=spell_out(row.method, "method", **self._method_arguments()),
                hyper_optimizer=args.hyper_optimizer or row.hyper_optimizer,
                learn_sigma=False if args.hold_sigma else row.learn_sigma,
                hyper_learning_rate=args.hyper_learning_rate,
                outer_batch_size=args.outer_batch_size or batch,
                sigma=args.sigma,
                tag=args.tag,
            )
        record = self.run(run)
        if args.retrain and row.method and record and "error" not in record:
            last = record["hyperparameters"][-1]
            self.run_point(seed, tuple(last.items()), run.label)

    def _method_arguments(self):
        epochs = self._args.epochs or self.problem.epochs
        warmup = min(self.problem.warmup_epochs, epochs // 2)
        return {"warmup_epochs": warmup, **self.problem.method}

    def _run_search(self, name):
        """Search, then train what the search has chosen on all seeds."""
        args = self._args
        sizes = {"points": args.search_points, "point_seeds": args.search_seeds}
        found = self.run(self._make_run(name, 0, **sizes))
        if found is None:
            print(f"{self._name}: run {name} again when its part is there.", flush=True)
            return
        for values in dict.fromkeys(searches.chosen_values(found).values()):
            for seed in self._seeds:
                self.run_point(seed, values)

    def run_point(self, seed, values, of=None):
        """Train at fixed values, which another row found; return the record."""
        return self.run(self._make_run("point", seed, initial=values, of=of))

    def _make_run(self, row, seed, **settings):
        args = self._args
        epochs = args.epochs or self.problem.epochs
        common = {"epochs": epochs, "scale": args.scale, "split": args.split}
        return Run(self._name, row, seed, **common, **settings)

    def run(self, run):
        """Return the record of a run, from the results or trained now.

        It is `None` if another process is to train it, which has another `--part`:
        seeds take turns.
        """
        found = self.results.read().get(run.key)
        part, parts = self._args.part
        if found is not None or run.seed % parts != part:
            return found
        if self._data is None:
            self._data = self.problem.load(run.scale, run.split)
        start, folder = time.perf_counter(), self._args.output
        if run.row in SEARCHES:
            record = searches.search(run, self._data, folder, self._args.workers)
        else:
            record = training.train(run, self._data, folder)
        self.results.append(run, record)
        training.forget_unfinished(run, folder)
        training.free_memory()
        report(run, record, time.perf_counter() - start)
        return {"run": run, **record}


def report(run, record, seconds):
    """Print one line about a run."""
    if run.row in SEARCHES:
        best = min(searches.trial_losses(record))
        shown = f"{len(record['trials'])} points, best validation {best:.4f}"
    elif "error" in record:
        shown = f"failed: {record['error'][:60]}"
    else:
        values = record["hyperparameters"][-1]
        shown = f"validation {record['val_loss'][-1]:.4f}"
        shown += f", test {record['test_loss'][-1]:.4f}, λ "
        shown += " ".join(f"{np.mean(value):.3g}" for value in values.values())
    print(
        f"{run.problem}: {run.label}, seed {run.seed}: {shown} ({seconds:.1f} s, peak "
        f"{training.peak_memory()} MiB)",
        flush=True,
    )


def main(argv=None):
    """Do what the command line says."""
    args = parse(argv)
    # Every run has functions of its own, which TensorFlow takes for retracing.
    tf.get_logger().setLevel("ERROR")
    for name in args.problem:
        if args.command == "run":
            Table(name, args).run_all()
        elif args.command == "summary":
            print(summary.summarize(Results(args.output, name)), flush=True)
        else:
            figures.draw(Results(args.output, name), args.output)


if __name__ == "__main__":
    main()
