"""Measure how much memory stays taken by models that have been deleted.

    python -m benchmarks.memory_growth                # 60 models of each kind
    python -m benchmarks.memory_growth --models 200
    python -m benchmarks.memory_growth --keep-names   # without clear_session

A search makes many models in one process. Each model here has layers of another width,
is built, fitted and deleted; then Python's garbage is collected, and
`keras.backend.clear_session()` is called. The figure is the resident memory that a
model adds, over the second half of the models.
"""

import argparse
import gc
import os
import resource

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt

PLAIN = "plain Keras"
METHODS = {
    "DeltaSTN()": lambda: bt.DeltaSTN(train_steps=2),
    "STN()": lambda: bt.STN(train_steps=2),
    "Neumann(3)": lambda: bt.Neumann(3, train_steps=2),
    "GaussNewton()": lambda: bt.methods.GaussNewton(train_steps=2),
    "Greedy()": lambda: bt.methods.Greedy(train_steps=2),
    "Unrolled(3)": lambda: bt.methods.Unrolled(3, train_steps=2),
    "ForwardMode()": lambda: bt.methods.ForwardMode(train_steps=2),
}
POSTERIOR = "ELBO()"


def main(arguments=None):
    """Print the table."""
    print("\n".join(report(parse(arguments))))


def parse(arguments=None):
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=60, help="default: 60")
    parser.add_argument(
        "--keep-names", action="store_true", help="do not call clear_session"
    )
    names = [PLAIN, *METHODS, POSTERIOR]
    parser.add_argument("--kinds", nargs="*", choices=names, default=names)
    return parser.parse_args(arguments)


def report(options):
    """Return the lines of the table, in Markdown."""
    rows = ["| model | MiB per model |", "| --- | --- |"]
    for name in options.kinds:
        growth = measure_growth(name, options.models, not options.keep_names)
        rows.append(f"| {name} | {growth:.2f} |")
    return rows


def measure_growth(name, models, clear=True):
    """Return the MiB that every model adds to the memory of this process.

    Args:
        name: What to build: `PLAIN`, `POSTERIOR` or a key of `METHODS`.
        models: How many to build; the first half is not counted.
        clear: Whether to call `keras.backend.clear_session()` after each.
    """
    half = models // 2
    for number in range(models):
        if number == half:
            before = resident_memory()
        fit_once(name, width=8 + number)
        if clear:
            keras.backend.clear_session()
        gc.collect()
    return (resident_memory() - before) / (models - half)


def fit_once(name, width):
    """Build a model, fit it for one epoch, and let it go."""
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    y = x[:, :1]
    model = plain(width) if name == PLAIN else bilevel(name, width)
    model.fit(x, y, 8, validation_data=(x, y), verbose=0)


def plain(width):
    """Return a compiled plain Keras model."""
    inputs = keras.Input((6,))
    x = keras.layers.Dense(width, "tanh", kernel_regularizer="l2")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    model.compile("sgd", "mse")
    return model


def bilevel(name, width):
    """Return the compiled bilevel model of the same network."""
    scale = bt.LogUniform(1e-5, 1.0, initial=1e-2)
    space = bt.HyperparameterSpace(tuned=scale)
    inputs = keras.Input((6,))
    if name == POSTERIOR:
        prior = bt.NormalPrior(space["tuned"], data_size=32)
        x = bt.VariationalDense(width, "tanh", prior=prior)(inputs)
        outputs = bt.VariationalDense(1, prior=prior)(x)
        arguments = {
            "method": bt.methods.T1T2(train_steps=2),
            "objective": bt.objectives.ELBO(),
            "loss": bt.losses.GaussianLikelihood(1.0),
        }
    else:
        penalty = bt.L2(space["tuned"])
        x = bt.HyperDense(width, "tanh", kernel_regularizer=penalty)(inputs)
        outputs = bt.HyperDense(1)(x)
        arguments = {"method": METHODS[name](), "loss": "mse"}
    model = bt.BilevelModel(inputs, outputs, hyperparameters=space)
    model.compile("sgd", **arguments)
    return model


def resident_memory():
    """Return the memory of this process in MiB; its peak if the system hides more."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
