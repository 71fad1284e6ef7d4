"""Measure a hypergradient's time, against JAX and PyTorch, and its memory.

    python -m benchmarks.hypergradient                       # both tables
    python -m benchmarks.hypergradient --clock wall processor --no-memory
    python -m benchmarks.hypergradient --peer-python ../peers/bin/python
    python -m benchmarks.hypergradient --quick               # check that all works

Every framework runs in a process of its own. A round calls every function of every
process once. Times are medians over rounds, and ratios are medians of the ratios
within rounds. One row has only the matrix products: no implementation can be faster.
The extra `benchmarks` installs the other frameworks; those that are not installed are
left out.
"""

import argparse
import os
import platform
import statistics
import sys

import numpy as np

from benchmarks.hypergradient import memory, worker, workers, workload

OURS = ("bilevel_tf", "bilevel_tf, XLA")


def main(arguments=None):
    """Print the tables."""
    options = parse(arguments)
    # Measure memory first: a child process starts with its parent's peak.
    lines = [] if options.no_memory else [*memory_lines(options), ""]
    if not options.no_speed:
        lines += speed_lines(options)
    print("\n".join(lines))


def parse(arguments=None):
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="use tiny networks")
    parser.add_argument("--rounds", type=int, help="default: 15, or 3 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", nargs="+", choices=list(worker.CLOCKS), default=["wall"]
    )
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        help="interpreter with the other frameworks",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure peak memory"
    )
    parser.add_argument("--no-speed", action="store_true", help="do not measure times")
    parser.add_argument(
        "--steps", nargs="*", type=int, help="values of T; default: 10, 100 and 1000"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 15)
    options.steps = options.steps or ([2, 5] if options.quick else [10, 100, 1000])
    return options


# Speed


def speed_lines(options):
    """Return the lines on times, in Markdown."""
    versions, results, times = workers.measured(options)
    lines = [machine(options, versions), *absent(versions)]
    for clock in options.clock:
        lines += ["", *time_table(results, times, clock, options)]
        lines += ["", *ratio_table(results, times, clock)]
    return [*lines, "", *difference_table(results)]


def machine(options, versions):
    """Return one line that describes machine, versions and settings."""
    present = ", ".join(f"{k} {v}" for k, v in versions.items() if v is not None)
    return (
        f"{os.cpu_count()} {platform.machine()} cores, {options.threads} threads, "
        f"{present}; {options.rounds} interleaved rounds"
    )


def absent(versions):
    """Return a line for every framework that was left out."""
    return [
        f"{name} is not installed and is left out."
        for name, version in versions.items()
        if version is None
    ]


def time_table(results, times, clock, options):
    """Return the table of the median times of every variant."""
    work = workload.TINY if options.quick else workload.FULL

    def cell(name, kind):
        own = times.get((name, kind, clock))
        return f"{1e3 * statistics.median(own):.1f} ms" if own else "–"

    return table(f"{work.title}; {clock} time", results, cell)


def ratio_table(results, times, clock):
    """Return the table of this library's times, divided by those of each other row."""
    pairs = {
        f"{ours} / {peer}": (ours, peer)
        for peer in results
        if peer not in OURS
        for ours in OURS
    }

    def cell(name, kind):
        ours, theirs = [times.get((n, kind, clock)) for n in pairs[name]]
        return ratio(ours, theirs) if theirs else "–"

    return table(f"ratio of {clock} times", pairs, cell)


def difference_table(results):
    """Return the table of relative differences from this library's result."""
    reference = results[OURS[0]]
    names = [name for name in results if name != workload.FLOOR]

    def cell(name, kind):
        own = results[name].get(kind)
        return "–" if own is None else f"{difference(own, reference[kind]):.0e}"

    return table("relative difference of the result", names, cell)


def table(title, names, cell):
    """Return a table with a row per name and a column per kind."""
    work = workload.FULL
    rows = [
        f"| {title} | one gradient | CG, {work.iterations} iterations "
        f"| Neumann, {work.terms} terms |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        cells = " | ".join(cell(name, kind) for kind in workload.KINDS)
        rows.append(f"| {name} | {cells} |")
    return rows


def ratio(ours, theirs):
    """Return the median of the ratios within rounds."""
    quotients = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(quotients):.2f}"


def difference(vector, reference):
    """Return ‖vector − reference‖ / ‖reference‖."""
    vector, reference = vector.astype("float64"), reference.astype("float64")
    return np.linalg.norm(vector - reference) / np.linalg.norm(reference)


# Memory


def memory_lines(options):
    """Return the table of peak memory, in Markdown."""
    widths = memory.TINY if options.quick else memory.FULL
    heads = " | ".join(f"T = {steps}" for steps in options.steps)
    rows = [
        f"| {memory.title(widths)} | {heads} | grows with |",
        "| --- " * (len(options.steps) + 2) + "|",
    ]
    for name, (*_, promise) in memory.METHODS.items():
        growths = [memory.growth_of_child(name, t, widths) for t in options.steps]
        cells = " | ".join(f"{growth:.0f} MiB" for growth in growths)
        rows.append(f"| {name} | {cells} | {promise} |")
    return rows


if __name__ == "__main__":
    main()
