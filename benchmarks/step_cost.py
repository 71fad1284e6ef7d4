"""Measure training steps of each method, in steps of the plain Keras network.

    python -m benchmarks.step_cost            # both networks, on TensorFlow's kernels
    python -m benchmarks.step_cost --jit      # the same, compiled by XLA
    python -m benchmarks.step_cost --quick    # tiny networks, to check that all works

Every figure is the median over interleaved rounds. A round calls every step function
of every method once, in random order, on one batch that is held in memory. Each time
is compared with that of the plain Keras step in the same round.
"""

import argparse
import functools
import os
import pathlib
import platform
import random
import resource
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from benchmarks import networks
from bilevel_tf import _keras

METHODS = {
    "DeltaSTN()": bt.DeltaSTN,
    "DeltaSTN(shared_pass=True)": functools.partial(bt.DeltaSTN, shared_pass=True),
    "DeltaSTN(response_share=0.5)": functools.partial(bt.DeltaSTN, response_share=0.5),
    "CenteredSTN()": bt.methods.CenteredSTN,
    "STN()": bt.STN,
}
PLAIN = "plain Keras"
NAMED = "plain Keras, dropout on our random numbers"
# On a machine that is busy with other work, processor time is more reliable.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
TRAIN_STEPS, VALID_STEPS = 5, 1
BATCH = 128
WARM_UP = 3


def main(arguments=None):
    """Print the tables."""
    options = parse(arguments)
    set_threads(options.threads)
    tf.get_logger().setLevel("ERROR")
    chosen = networks.TINY if options.quick else networks.FULL
    chosen = {key: chosen[key] for key in options.networks or chosen}
    if options.peak_of:
        key, name = options.peak_of
        print(memory_growth(chosen[key], name, options.jit))
        return
    print("\n".join(report(chosen, options)))


def parse(arguments=None):
    """Return the arguments of the command line."""
    parser = common_options(__doc__)
    parser.add_argument(
        "--no-memory", action="store_true", help="do not measure peak memory"
    )
    parser.add_argument(
        "--sizes", nargs="*", type=int, help="values of h; default: 3, 50 and 200"
    )
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    options = with_defaults(parser.parse_args(arguments))
    options.no_memory |= options.quick
    if options.sizes is None:
        options.sizes = [3, 50, 200]
    return options


def common_options(description):
    """Return a parser with the options of all benchmarks of training steps."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=list(networks.FULL))
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--quick", action="store_true", help="use tiny networks")
    parser.add_argument("--rounds", type=int, help="default: 21, or 3 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    return parser


def with_defaults(options):
    """Return the options, with a number of rounds that fits the others."""
    options.rounds = options.rounds or (3 if options.quick else 21)
    return options


def set_threads(count):
    """Let TensorFlow use `count` threads; call it before the first operation."""
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def report(chosen, options):
    """Return the lines of the whole report, in Markdown."""
    # A child process starts with its parent's peak memory: run it while that is small.
    peaks = {} if options.no_memory else all_peaks(chosen, options)
    lines = [machine(options)]
    for key, network in chosen.items():
        lines += ["", *method_table(key, network, options, peaks)]
    if "mlp" in chosen and options.sizes:
        lines += ["", *size_table(chosen["mlp"], options)]
    return lines


def machine(options):
    """Return one line that describes machine, versions and settings."""
    compiler = "XLA" if options.jit else "no XLA"
    return (
        f"{os.cpu_count()} {platform.machine()} cores, {options.threads} threads, "
        f"{compiler}, Keras {keras.__version__}, TensorFlow {tf.__version__}, "
        f"Python {platform.python_version()}; batch {BATCH}, "
        f"{options.rounds} interleaved rounds, {options.clock} time"
    )


# Tables


def method_table(key, network, options, peaks):
    """Return the table of one network: ratios to plain Keras, and memory."""
    steps = {
        PLAIN: plain_steps(network, options.jit),
        NAMED: plain_steps(network, options.jit, networks.NAMED),
    }
    for name, method in METHODS.items():
        model = networks.compiled_bilevel(network, make(method), options.jit)
        steps[name] = bilevel_steps(model, network)
    times = interleaved(steps, options)
    plain = times[PLAIN]
    rows = [
        f"| {network.title} | inner step | whole round / {TRAIN_STEPS} | prediction "
        "| peak memory |",
        "| --- | --- | --- | --- | --- |",
        f"| {PLAIN} | {milliseconds(plain['inner'])} | – "
        f"| {milliseconds(plain['predict'])} | {megabytes(peaks, key, PLAIN)} |",
        f"| {NAMED} | {ratio(times[NAMED]['inner'], plain['inner'])} | – "
        f"| {ratio(times[NAMED]['predict'], plain['predict'])} | – |",
    ]
    for name in METHODS:
        own = times[name]
        rows.append(
            f"| {name} | {ratio(own['inner'], plain['inner'])} "
            f"| {ratio(whole_round(own), plain['inner'])} "
            f"| {ratio(own['predict'], plain['predict'])} "
            f"| {megabytes(peaks, key, name)} |"
        )
    return rows


def size_table(network, options):
    """Return the table of the Δ-STN's steps by the number of hyperparameters."""
    steps = {PLAIN: plain_steps(network, options.jit)}
    for size in options.sizes:
        method = make(bt.DeltaSTN)
        model = networks.compiled_bilevel(network, method, options.jit, size)
        steps[size] = bilevel_steps(model, network)
    times = interleaved(steps, options)
    plain = times[PLAIN]["inner"]
    rows = [
        f"| {network.title}, DeltaSTN() | inner step | whole round / {TRAIN_STEPS} "
        "| paper's estimate for a perturbed layer, 2 + h/n |",
        "| --- | --- | --- | --- |",
    ]
    for size in options.sizes:
        own = times[size]
        rows.append(
            f"| h = {size} | {ratio(own['inner'], plain)} "
            f"| {ratio(whole_round(own), plain)} | {2 + size / network.width:.2f} |"
        )
    return rows


def whole_round(times):
    """Return the cost of a round per inner step, for every interleaved round."""
    pairs = zip(times["inner"], times["outer"], strict=True)
    return [inner + outer * VALID_STEPS / TRAIN_STEPS for inner, outer in pairs]


def ratio(times, plain):
    """Return the median of the ratios within rounds."""
    quotients = [a / b for a, b in zip(times, plain, strict=True)]
    return f"{statistics.median(quotients):.2f}"


def milliseconds(times):
    """Return the median time."""
    return f"{1e3 * statistics.median(times):.1f} ms"


def megabytes(peaks, key, name):
    """Return a peak of memory as the table shows it."""
    return f"{peaks[key, name]:.0f} MiB" if peaks else "–"


# Steps


def make(method):
    """Return a method with the schedule of the benchmark."""
    return method(train_steps=TRAIN_STEPS, valid_steps=VALID_STEPS)


def plain_steps(network, jit, layers=networks.PLAIN):
    """Return step functions of the plain model, as Keras's trainer makes them."""
    model = networks.compiled_plain(network, jit, layers)
    return {
        "inner": on_batch(model, model.train_step, network),
        "predict": prediction(model, network),
    }


def bilevel_steps(model, network):
    """Return step functions of a bilevel model, made in the same way."""
    return {
        "inner": on_batch(model, model.train_step, network),
        "outer": on_batch(model, lambda data: model.outer_train_step((data,)), network),
        "predict": prediction(model, network),
    }


def on_batch(model, step, network):
    """Return a step as Keras's trainer compiles it, bound to one batch in memory."""
    batches = tf.data.Dataset.from_tensors(batch(network)).repeat()
    return functools.partial(_keras.make_step_function(model, step), iter(batches))


def prediction(model, network):
    """Return Keras's prediction step, bound to one batch in memory."""
    model.make_predict_function()
    return functools.partial(model.predict_function, [batch(network)[:1]])


def batch(network):
    """Return a batch of noise, the same every time."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH, *network.input_shape)).astype("float32")
    return tf.constant(x), tf.constant(generator.integers(10, size=BATCH))


def interleaved(steps, options):
    """Call all steps in every round; return seconds by name and kind."""
    clock = CLOCKS[options.clock]
    calls = [(name, kind) for name, kinds in steps.items() for kind in kinds]
    times = {name: {kind: [] for kind in kinds} for name, kinds in steps.items()}
    order = random.Random(0)
    for index in range(WARM_UP + options.rounds):
        for name, kind in order.sample(calls, len(calls)):
            start = clock()
            steps[name][kind]()
            if index >= WARM_UP:
                times[name][kind].append(clock() - start)
    return times


# Memory


def all_peaks(chosen, options):
    """Return peak memory in MiB by network and method, each from an own process."""
    names = [PLAIN, *METHODS]
    return {(k, n): peak_of_child(k, n, options) for k in chosen for n in names}


def peak_of_child(key, name, options):
    """Return the peak memory of a new process that trains one configuration."""
    command = [sys.executable, "-m", "benchmarks.step_cost", "--peak-of", key, name]
    command += ["--threads", str(options.threads)]
    command += ["--jit"] * options.jit + ["--quick"] * options.quick
    root = pathlib.Path(__file__).parents[1]
    result = subprocess.run(command, cwd=root, capture_output=True, check=True)
    return float(result.stdout.split()[-1])


def memory_growth(network, name, jit):
    """Return the MiB that a round of this process's first model adds to its peak."""
    before = peak_memory()
    if name == PLAIN:
        steps = plain_steps(network, jit)
    else:
        model = networks.compiled_bilevel(network, make(METHODS[name]), jit)
        steps = bilevel_steps(model, network)
    for kind in ("inner", "inner", "outer", "inner"):
        if kind in steps:
            steps[kind]()
    return peak_memory() - before


def peak_memory():
    """Return the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
