"""A process that imports one framework and times its calls on request.

It writes pickled objects: first the versions of its packages, then the results, and
then the seconds of a round for every line that it reads. It imports nothing of the
other frameworks.
"""

import importlib
import importlib.metadata
import os
import pickle
import random
import sys
import time

import numpy as np

from benchmarks.hypergradient import workload

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
# The packages that a module uses. Only the first is required.
PACKAGES = {
    "in_tensorflow": ("tensorflow", "keras"),
    "in_jax": ("jax", "jaxopt"),
    "in_pytorch": ("torch", "torchopt"),
}


def main(module, size, threads):
    """Write the answers until the input ends."""
    limit_cores(int(threads))
    answer = redirect_output()
    found = versions(PACKAGES[module])
    answer(found)
    if next(iter(found.values())) is None:
        return
    framework = importlib.import_module(f"benchmarks.hypergradient.{module}")
    variants = framework.variants(getattr(workload, size), int(threads))
    answer({name: results(calls) for name, calls in variants.items()})
    order = random.Random(0)
    for _ in sys.stdin:
        answer(one_round(variants, order))


def versions(packages):
    """Return versions by package; `None` for one that is not installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def limit_cores(count):
    """Stay on `count` cores, if the system supports that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def redirect_output():
    """Return a function that writes an object; redirect all prints to the errors."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(value):
        pickle.dump(value, stream)
        stream.flush()

    return answer


def results(calls):
    """Return the result of every call, as the bytes of one float32 vector."""
    return {
        kind: np.concatenate([_flatten(x) for x in call()]).tobytes()
        for kind, call in calls.items()
    }


def _flatten(tensor):
    return np.ravel(np.asarray(tensor))


def one_round(variants, order):
    """Time each call once, in random order; return seconds by variant, kind, clock."""
    pairs = [(name, kind) for name, calls in variants.items() for kind in calls]
    seconds = {name: {} for name in variants}
    for name, kind in order.sample(pairs, len(pairs)):
        seconds[name][kind] = timed(variants[name][kind])
    return seconds


def timed(call):
    """Return the seconds that a call takes, by clock."""
    starts = {name: clock() for name, clock in CLOCKS.items()}
    call()
    return {name: clock() - starts[name] for name, clock in CLOCKS.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
