"""A process that holds one framework and times its calls when told to.

It reads a line for every round and answers with one pickled object: first what it is,
then the results, then seconds. It imports one framework, and nothing of the others.
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
# The packages that a module uses; it can do without any but the first.
PACKAGES = {
    "in_tensorflow": ("tensorflow", "keras"),
    "in_jax": ("jax", "jaxopt"),
    "in_pytorch": ("torch", "torchopt"),
}


def main(module, size, threads):
    """Answer until the input ends."""
    limit_cores(int(threads))
    answer = answering()
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
    """Versions by package; `None` for one that is not installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def limit_cores(count):
    """Stay on so many cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def answering():
    """What sends an object; anything else that is printed goes to the errors."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(value):
        pickle.dump(value, stream)
        stream.flush()

    return answer


def results(calls):
    """What every call computes, as the bytes of one float32 vector."""
    return {
        kind: np.concatenate([_flat(x) for x in call()]).tobytes()
        for kind, call in calls.items()
    }


def _flat(tensor):
    return np.ravel(np.asarray(tensor))


def one_round(variants, order):
    """Seconds of one call of each, in random order: by variant, kind and clock."""
    pairs = [(name, kind) for name, calls in variants.items() for kind in calls]
    seconds = {name: {} for name in variants}
    for name, kind in order.sample(pairs, len(pairs)):
        seconds[name][kind] = timed(variants[name][kind])
    return seconds


def timed(call):
    """Seconds by clock."""
    starts = {name: clock() for name, clock in CLOCKS.items()}
    call()
    return {name: clock() - starts[name] for name, clock in CLOCKS.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
