"""The parent's side of the processes that import one framework each."""

import os
import pathlib
import pickle
import random
import subprocess
import sys

import numpy as np

from benchmarks.hypergradient import worker, workload

ROOT = pathlib.Path(__file__).parents[2]
WARM_UP = 3


class Worker:
    """A running process of `worker`.

    Args:
        module: The module that it imports, a key of `worker.PACKAGES`.
        python: The interpreter that runs it.
        size: "FULL" or "TINY".
        threads: Number of threads that it may use.

    Attributes:
        versions: Versions of its packages; `None` for those that are not installed.
        present: Whether the framework is installed.
        results: Vectors by variant and kind; empty if the framework is absent.
    """

    def __init__(self, module, python, size, threads):
        program = "benchmarks.hypergradient.worker"
        self._process = subprocess.Popen(
            [python, "-m", program, module, size, str(threads)],
            cwd=ROOT,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.versions = self._read_answer()
        self.present = next(iter(self.versions.values())) is not None
        self.results = {}
        if self.present:
            self.results = {
                name: {kind: np.frombuffer(b, "float32") for kind, b in kinds.items()}
                for name, kinds in self._read_answer().items()
            }

    def round(self):
        """Run one round; return seconds by variant, kind and clock."""
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._read_answer()

    def close(self):
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def _read_answer(self):
        return pickle.load(self._process.stdout)


def environment(threads):
    """Return the environment variables of a worker.

    With them, a thread of PyTorch that waits does not keep a core busy.
    """
    return {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(threads),
        "JAX_PLATFORMS": "cpu",
    }


def measured(options):
    """Measure the time of everything.

    Returns:
        Three dicts: versions by package; results by variant and kind; and lists of
        seconds, one per round, by variant, kind and clock.
    """
    size = "TINY" if options.quick else "FULL"
    running = []
    try:
        for module in worker.PACKAGES:
            python = options.peer_python
            if module == "in_tensorflow":
                python = sys.executable
            running.append(Worker(module, python, size, options.threads))
        versions = {k: v for w in running for k, v in w.versions.items()}
        results = {k: v for w in running for k, v in w.results.items()}
        return versions, results, interleaved(running, results, options.rounds)
    finally:
        for process in running:
            process.close()


def interleaved(running, results, rounds):
    """Run every process once per round, in random order; return lists of seconds."""
    running = [process for process in running if process.present]
    times = {
        (name, kind, clock): []
        for name, kinds in results.items()
        for kind in workload.KINDS
        if kind in kinds
        for clock in worker.CLOCKS
    }
    order = random.Random(0)
    for index in range(WARM_UP + rounds):
        for process in order.sample(running, len(running)):
            seconds = process.round()
            if index >= WARM_UP:
                for name, kind, clock in times:
                    if name in seconds:
                        times[name, kind, clock].append(seconds[name][kind][clock])
    return times
