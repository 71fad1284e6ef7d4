"""What training with a posterior over the weights costs, in steps of plain Keras.

    python -m benchmarks.variational_cost            # on TensorFlow's kernels
    python -m benchmarks.variational_cost --jit      # the same, compiled by XLA
    python -m benchmarks.variational_cost --quick    # tiny networks

The networks of `benchmarks.step_cost` without dropout. Every figure is the median over
interleaved rounds of one process, each against the plain Keras step of its round.
"""

import argparse
import functools

import keras
import tensorflow as tf

import bilevel_tf as bt
from benchmarks import networks, step_cost

PLAIN = "plain Keras"
ESTIMATORS = {
    "default": None,
    "local": "local",
    "flipout": "flipout",
    "shared": "shared",
}


def main(arguments=None):
    """Print the tables."""
    options = parse(arguments)
    step_cost.set_threads(options.threads)
    tf.get_logger().setLevel("ERROR")
    print("\n".join(report(networks.TINY if options.quick else networks.FULL, options)))


def parse(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=list(networks.FULL))
    parser.add_argument("--jit", action="store_true", help="compile with XLA")
    parser.add_argument("--quick", action="store_true", help="tiny networks")
    parser.add_argument("--rounds", type=int, help="21, or 3 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(step_cost.CLOCKS), default="wall")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 21)
    return options


def report(chosen, options):
    """The lines of the whole report, in Markdown."""
    lines = [step_cost.machine(options)]
    for key in options.networks or chosen:
        lines += ["", *table(chosen[key], options)]
    return lines


def table(network, options):
    """Every estimator on one network: ratios to plain Keras."""
    steps = {PLAIN: steps_of(network, networks.PLAIN, options.jit)}
    for name, estimator in ESTIMATORS.items():
        steps[name] = steps_of(network, variational(estimator), options.jit)
    times = step_cost.interleaved(steps, options)
    plain = times[PLAIN]
    rows = [
        f"| {network.title} | training step | prediction |",
        "| --- | --- | --- |",
        f"| {PLAIN} | {step_cost.milliseconds(plain['inner'])} "
        f"| {step_cost.milliseconds(plain['predict'])} |",
    ]
    for name in ESTIMATORS:
        own = times[name]
        rows.append(
            f"| {name} | {step_cost.ratio(own['inner'], plain['inner'])} "
            f"| {step_cost.ratio(own['predict'], plain['predict'])} |"
        )
    return rows


def variational(estimator):
    """Layer classes with a posterior and this estimator; `None` for the defaults."""
    arguments = {"prior": bt.NormalPrior(100.0, data_size=60_000)}
    arguments["estimator"] = estimator
    dense, conv = (
        functools.partial(layer, **arguments)
        for layer in (bt.VariationalDense, bt.VariationalConv2D)
    )
    return networks.Layers(dense, conv, None)


def steps_of(network, layers, jit):
    """Training and prediction step of a plain Keras model of these layers."""
    layers = networks.Layers(layers.dense, layers.conv, lambda rate: lambda x: x)
    inputs = keras.Input(network.input_shape)
    outputs = network.body(inputs, layers, [0.0] * network.rates)
    model = keras.Model(inputs, outputs)
    model.compile(**networks.training_arguments(jit))
    return {
        "inner": step_cost.on_batch(model, model.train_step, network),
        "predict": step_cost.prediction(model, network),
    }


if __name__ == "__main__":
    main()
