"""Compare all methods that differentiate training on one small problem.

A network of 760 weights with 76 penalty factors (see `tanh_network.py`).

    python examples/method_comparison.py              # about three minutes
    python examples/method_comparison.py --memory     # with a process per method

First, each method computes one hypergradient. Implicit methods, and methods that look
one step ahead, compute it at w*, which L-BFGS has found to a gradient below 1e-8.
Methods that follow a trajectory start from random weights and take T steps of SGD with
momentum. The columns of the table:

- `own error`: relative error against the exact derivative of what the method itself
  differentiates: dQ(w*(λ))/dλ by `ExactImplicit`, dQ of one step from w* by `Greedy`,
  or dQ of T steps from the random start by `Unrolled`.
- `error` and `cosine`: relative error and cosine against dQ(w*(λ))/dλ, for all
  methods. A trajectory that has not converged is far from it, even if it is
  differentiated exactly.
- `ms`: median time of one call in a `tf.function`, including its T steps.
- `peak MiB`: how much the first call after tracing adds to the peak memory of a
  process of its own.

Then the methods race. Every method starts at w* with all λ = −5. For the same number
of seconds it repeats 20 steps of SGD with momentum, one hypergradient at the weights
reached, and one step of Adam on λ, which is kept between −12 and 0. `outer` and `test`
are the losses of the weights at the end of the race. `outer at w*` and `test at w*`
are those of weights that were then trained to convergence at the last λ. The
difference shows how far the weights lag behind λ.

Seconds are processor time, which other work on the machine disturbs less.
"""

import argparse
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import keras
import lbfgs
import matplotlib as mpl
import numpy as np
import tensorflow as tf
from tanh_network import TanhNetwork

import bilevel_tf as bt

mpl.use("Agg")
import matplotlib.pyplot as plt

RATE, MOMENTUM = 0.2, 0.9
INNER_STEPS = 20
LOW, HIGH = -12.0, 0.0
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
IMPLICIT, ONE_STEP, TRAJECTORY = "implicit", "one step", "trajectory"
# Methods by family, in each the exact one first. T is the number of steps.
METHODS = {
    IMPLICIT: {
        "ExactImplicit": lambda T: bt.methods.ExactImplicit(),
        "CG, 20": lambda T: bt.ConjugateGradient(20),
        "CG, 100": lambda T: bt.ConjugateGradient(100),
        "HOAG, ε = 0.1": lambda T: bt.methods.HOAG(0.1),
        "Neumann, 20": lambda T: bt.Neumann(20),
        "T1T2": lambda T: bt.methods.T1T2(),
        "GaussNewton, 20": lambda T: bt.methods.GaussNewton(20),
        "EmpiricalFisher, 20": lambda T: bt.methods.EmpiricalFisher(20),
    },
    ONE_STEP: {
        "Greedy": lambda T: bt.methods.Greedy(),
        "DARTS, exact": lambda T: bt.methods.DARTS(RATE),
        "DARTS, difference": lambda T: bt.methods.DARTS(RATE, "finite_difference"),
    },
    TRAJECTORY: {
        "Unrolled": lambda T: bt.Unrolled(T),
        "Unrolled, truncated": lambda T: bt.Unrolled(T, truncation=max(T // 5, 1)),
        "Unrolled, checkpoints": lambda T: bt.Unrolled(T, checkpointed=True),
        "ForwardMode": lambda T: bt.methods.ForwardMode(T),
        "RMAD": lambda T: bt.methods.RMAD(T),
        "DrMAD": lambda T: bt.methods.DrMAD(T),
    },
}


class Contender:
    """A method, compiled once for the table and the race.

    Args:
        network: The `TanhNetwork`.
        family: Name of the method's family.
        name: Name of the method in its family.
        steps: T, the number of steps.
        clock: Function that returns seconds, one of `CLOCKS`.
    """

    def __init__(self, network, family, name, steps, clock=time.perf_counter):
        self.family = family
        self._network = network
        self._clock = clock
        method = METHODS[family][name](steps)
        inner = network.inner_loss
        if isinstance(method, bt.methods.EmpiricalFisher):
            inner = network.example_losses
        optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM)

        @tf.function(autograph=False)
        def gradient(weights, hyperparameters):
            return bt.hypergradient(
                inner, network.outer_loss, weights, hyperparameters, method, optimizer
            ).gradients

        self.gradient = gradient

    def start(self, trained):
        """Return the weights at which the table shows the method."""
        return self._network.weights if self.family == TRAJECTORY else trained

    def measure(self, trained, repeats=3):
        """Return the hypergradient as one vector, and the seconds that it takes."""
        point = self.start(trained), self._network.hyperparameters
        found = self.gradient(*point)
        times = []
        for _ in range(repeats):
            begin = self._clock()
            self.gradient(*point)
            times.append(self._clock() - begin)
        return np.concatenate(found), statistics.median(times)

    def race(self, train, trained, seconds, rate):
        """Return seconds and outer losses of all rounds, and the last weights and λ."""
        weights, velocity = trained, [tf.zeros_like(w) for w in trained]
        values = self._network.hyperparameters
        descend = descent(values, rate)
        clock, losses = [], []
        begin = self._clock()
        while not clock or clock[-1] < seconds:
            weights, velocity, loss = train(weights, velocity, values)
            values = descend(*self.gradient(weights, values))
            losses.append(float(loss))
            clock.append(self._clock() - begin)
        return clock, losses, weights, values


def descent(hyperparameters, rate):
    """Return the outer step, a compiled function from dQ/dλ to the next λ."""
    variables = [keras.Variable(h, dtype="float64") for h in hyperparameters]
    for variable in variables:
        variable.constraint = lambda h: tf.clip_by_value(h, LOW, HIGH)
    adam = keras.optimizers.Adam(rate)
    adam.build(variables)

    @tf.function(autograph=False)
    def descend(*gradients):
        adam.apply(gradients, variables)
        return [tf.identity(v.value) for v in variables]

    descend.get_concrete_function(*hyperparameters)
    return descend


def trainer(network):
    """Return the inner steps between two outer steps, a compiled function.

    It returns weights, velocity, and Q after the steps.
    """

    @tf.function(autograph=False)
    def train(weights, velocity, hyperparameters):
        for _ in range(INNER_STEPS):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                loss = network.inner_loss(weights, hyperparameters)
            gradients = tape.gradient(loss, weights)
            pairs = zip(velocity, gradients, strict=True)
            velocity = [MOMENTUM * v - RATE * g for v, g in pairs]
            weights = [w + v for w, v in zip(weights, velocity, strict=True)]
        return weights, velocity, network.outer_loss(weights)

    return train


def compare(network, args):
    """Return the rows of the table, and print them."""
    minimise = lbfgs.minimiser(network.inner_loss)
    finish = lbfgs.minimiser(network.inner_loss, tolerance=1e-5)
    trained, slope = minimise(network.weights, network.hyperparameters)
    at_start = float(network.outer_loss(trained)), float(network.test_loss(trained))
    print(f"at w*: ‖∂L/∂w‖∞ = {slope:.1g}, outer and test loss %.4f, %.4f" % at_start)
    train = trainer(network)
    train(trained, [tf.zeros_like(w) for w in trained], network.hyperparameters)
    rows, exact = [], {}
    print_header(args)
    for family, name in chosen(args):
        clock = CLOCKS[args.clock]
        contender = Contender(network, family, name, args.steps, clock)
        found, duration = contender.measure(trained)
        own = exact.setdefault(family, found)
        seconds, losses, *last = contender.race(train, trained, args.seconds, args.rate)
        weights, _ = finish(*last)
        row = {
            "family": family,
            "method": name,
            "own_error": relative_error(found, own),
            "error": relative_error(found, exact[IMPLICIT]),
            "cosine": cosine(found, exact[IMPLICIT]),
            "ms": 1e3 * duration,
            "peak": peak_of_child(name, args) if args.memory else None,
            "seconds": seconds,
            "losses": losses,
            "weights": weights,
            "outer": losses[-1],
            "test": float(network.test_loss(last[0])),
            "outer_at_end": float(network.outer_loss(weights)),
            "test_at_end": float(network.test_loss(weights)),
        }
        print_row(row)
        rows.append(row)
    return rows


def chosen(args):
    """Return pairs of family and method: those asked for, and the exact ones."""
    return [
        (family, name)
        for family, methods in METHODS.items()
        for i, name in enumerate(methods)
        if i == 0 or not args.methods or name.split(",")[0] in args.methods
    ]


def relative_error(found, exact):
    """Return ‖found − exact‖ / ‖exact‖."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def cosine(a, b):
    """Return the cosine of the angle between two vectors."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def print_header(args):
    """Print the first line of the table."""
    print(
        f"\n{'method':<23}{'own error':>10}{'error':>9}{'cosine':>8}{'ms':>8}"
        f"{'peak MiB':>10}{f'rounds in {args.seconds:g} s':>16}"
        f"{'outer':>9}{'test':>9}{'outer at w*':>13}{'test at w*':>12}"
    )


def print_row(row):
    """Print one line of the table."""
    peak = "–" if row["peak"] is None else f"{row['peak']:.1f}"
    print(
        f"{row['method']:<23}{row['own_error']:>10.1e}{row['error']:>9.2g}"
        f"{row['cosine']:>8.3f}{row['ms']:>8.1f}{peak:>10}{len(row['seconds']):>16}"
        f"{row['outer']:>9.4f}{row['test']:>9.4f}"
        f"{row['outer_at_end']:>13.4f}{row['test_at_end']:>12.4f}",
        flush=True,
    )


# Memory


def peak_of_child(name, args):
    """Return the MiB that one hypergradient adds to the peak of an own process."""
    command = [sys.executable, __file__, f"--peak-of={name}", f"--steps={args.steps}"]
    command += [f"--examples={args.examples}", f"--width={args.width}"]
    result = subprocess.run(command, capture_output=True, check=True)
    return float(result.stdout.split()[-1])


def memory_growth(network, name, steps):
    """Return the MiB that one hypergradient adds to the peak of this process.

    It is computed at the starting weights.
    """
    (family,) = [f for f, methods in METHODS.items() if name in methods]
    contender = Contender(network, family, name, steps)
    point = network.weights, network.hyperparameters
    contender.gradient.get_concrete_function(*point)
    before = peak_memory()
    contender.gradient(*point)
    return peak_memory() - before


def peak_memory():
    """Return the peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# Picture


def draw(rows, path):
    """Draw error over time of one hypergradient, and the race of each family."""
    figure, axes = plt.subplots(1, 4, figsize=(18, 4.5))
    for axis, family in zip(axes[1:], METHODS, strict=True):
        of_family = [row for row in rows if row["family"] == family]
        for i, row in enumerate(of_family):
            axis.plot(row["seconds"], row["losses"], f"C{i}", label=row["method"])
        axis.set(title=f"race: {family}", xlabel="seconds", ylabel="outer loss")
        axis.set_ylim(*limits(rows))
        axis.legend(fontsize=7)
    for marker, family in zip("osv", METHODS, strict=True):
        of_family = [row for row in rows if row["family"] == family]
        errors = [max(row["error"], 1e-16) for row in of_family]
        axes[0].plot([row["ms"] for row in of_family], errors, marker, label=family)
        for row, error in zip(of_family, errors, strict=True):
            axes[0].annotate(row["method"], (row["ms"], error), fontsize=6)
    labels = {"xlabel": "ms", "ylabel": "relative error against dQ(w*(λ))/dλ"}
    axes[0].set(title="one hypergradient", xscale="log", yscale="log", **labels)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def limits(rows):
    """Return one range of outer losses for all races."""
    losses = np.concatenate([row["losses"] for row in rows])
    return 0.95 * np.nanmin(losses), 1.05 * max(row["losses"][0] for row in rows)


def export(network, weights, folder):
    """Write a SavedModel; return the largest difference of its outputs."""
    model = network.to_keras(weights)
    model.export(str(folder), verbose=False)
    served = tf.saved_model.load(str(folder))
    x = np.random.default_rng(0).uniform(size=(5, 64)).astype("float32")
    return float(np.abs(served.serve(x) - model.predict(x, verbose=0)).max())


def main(argv=None):
    """Compare all methods; return the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="length of each race"
    )
    parser.add_argument(
        "--steps", type=int, default=100, help="T, steps of a trajectory"
    )
    parser.add_argument(
        "--rate", type=float, default=0.02, help="learning rate of Adam on λ"
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        help="names without arguments; the exact ones always run",
    )
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--width", type=int, default=10)
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor")
    parser.add_argument("--memory", action="store_true", help="measure peak memory")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results"))
    parser.add_argument("--saved-model", default="saved_models/method_comparison")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    network = TanhNetwork(args.examples, args.width)
    if args.peak_of:
        print(memory_growth(network, args.peak_of, args.steps))
        return None
    rows = compare(network, args)
    draw(rows, args.output / "method_comparison.png")
    best = min(rows, key=lambda row: row["outer_at_end"])
    difference = export(network, best["weights"], args.saved_model)
    print(f"\nLargest difference of the SavedModel's outputs: {difference:.1g}")
    return rows


if __name__ == "__main__":
    main()
