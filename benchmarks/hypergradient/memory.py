"""Peak memory of the methods that follow T steps of training."""

import itertools
import pathlib
import resource
import subprocess
import sys

import numpy as np

from benchmarks.hypergradient.workers import environment

FULL, TINY = (784, 300, 10), (12, 8, 4)
MOMENTUM = 0.9
BATCH = 64
# By name in the table: class, further arguments, and what memory should grow with.
METHODS = {
    "Unrolled": ("Unrolled", {}, "T states"),
    "Unrolled, checkpointed": ("Unrolled", {"checkpointed": True}, "2√T states"),
    "ForwardMode": ("ForwardMode", {}, "–"),
    "RMAD": ("RMAD", {}, "0.15 bits per weight and step"),
    "DrMAD": ("DrMAD", {}, "–"),
}


def title(widths):
    """Return the table's name of the network; a state is weights and velocities."""
    count = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    network = "-".join(map(str, widths))
    return f"MLP {network}, states of {8 * count / 2**20:.1f} MiB"


def growth_of_child(name, steps, widths):
    """Return the MiB by which the peak of a new process grows."""
    program = "benchmarks.hypergradient.memory"
    result = subprocess.run(
        [sys.executable, "-m", program, name, str(steps), *map(str, widths)],
        cwd=pathlib.Path(__file__).parents[2],
        env=environment(2),
        capture_output=True,
        check=True,
    )
    return float(result.stdout.split()[-1])


def growth(name, steps, widths):
    """Return the MiB that T steps add to the peak of two steps, in this process."""
    import bilevel_tf as bt

    kind, arguments, _ = METHODS[name]
    few, all_steps = [
        compiled(getattr(bt.methods, kind)(t, **arguments), widths) for t in (2, steps)
    ]
    few()
    before = peak()
    all_steps()
    return peak() - before


def compiled(method, widths):
    """Return a compiled function without arguments: dQ/dλ of one L2 factor."""
    import keras
    import tensorflow as tf

    import bilevel_tf as bt

    generator = np.random.default_rng(0)
    x = tf.constant(generator.normal(size=(BATCH, widths[0])), "float32")
    labels = tf.constant(generator.integers(widths[-1], size=BATCH))
    weights = []
    for fan_in, units in itertools.pairwise(widths):
        kernel = generator.normal(size=(fan_in, units)) / fan_in**0.5
        weights += [tf.constant(kernel, "float32"), tf.zeros(units)]

    def outer_loss(w, h):
        hidden = x
        for kernel, bias in zip(w[:-2:2], w[1:-2:2], strict=True):
            hidden = tf.nn.relu(hidden @ kernel + bias)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, hidden @ w[-2] + w[-1]
        )
        return tf.reduce_mean(losses)

    def inner_loss(w, h):
        return outer_loss(w, h) + tf.exp(h) * tf.add_n([tf.nn.l2_loss(a) for a in w])

    optimizer = keras.optimizers.SGD(0.01, momentum=MOMENTUM)

    @tf.function
    def found():
        return bt.hypergradient(
            inner_loss, outer_loss, weights, tf.constant(-4.0), method, optimizer
        ).gradients

    return found


def peak():
    """Return the peak resident memory of this process in MiB."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    name, steps, *widths = sys.argv[1:]
    print(growth(name, int(steps), [int(width) for width in widths]))
