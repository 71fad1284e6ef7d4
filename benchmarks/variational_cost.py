"""Measure training with a posterior over the weights, in steps of plain Keras.

    python -m benchmarks.variational_cost            # on TensorFlow's kernels
    python -m benchmarks.variational_cost --jit      # the same, compiled by XLA
    python -m benchmarks.variational_cost --quick    # tiny networks

The networks are those of `benchmarks.step_cost` without dropout. One row is not an
estimator: it has two products and twice the variables, but no draws and no divergence.
No estimator with two products can be faster. Every figure is the median over
interleaved rounds of one process; each time is compared with that of the plain Keras
step in the same round.
"""

import functools

import keras
import tensorflow as tf

import bilevel_tf as bt
from benchmarks import networks, step_cost

PLAIN = "plain Keras"
FLOOR = "two products alone"
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
    """Return the arguments of the command line."""
    parser = step_cost.common_options(__doc__)
    return step_cost.with_defaults(parser.parse_args(arguments))


def report(chosen, options):
    """Return the lines of the whole report, in Markdown."""
    lines = [step_cost.machine(options)]
    for key in options.networks or chosen:
        lines += ["", *table(chosen[key], options)]
    return lines


def table(network, options):
    """Return the table of one network: ratios of every estimator to plain Keras."""
    steps = {PLAIN: steps_of(network, networks.PLAIN, options.jit)}
    steps[FLOOR] = steps_of(network, TWO_PRODUCTS, options.jit)
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
    for name in (FLOOR, *ESTIMATORS):
        own = times[name]
        rows.append(
            f"| {name} | {step_cost.ratio(own['inner'], plain['inner'])} "
            f"| {step_cost.ratio(own['predict'], plain['predict'])} |"
        )
    return rows


def variational(estimator):
    """Return layer classes with this estimator; `None` for their defaults."""
    arguments = {"prior": bt.NormalPrior(100.0, data_size=60_000)}
    arguments["estimator"] = estimator
    dense, conv = (
        functools.partial(layer, **arguments)
        for layer in (bt.VariationalDense, bt.layers.VariationalConv2D)
    )
    return networks.Layers(dense, conv, None)


class TwoProducts:
    """Mixin that adds the standard deviation of "local" to outputs, without a draw."""

    def build(self, input_shape):
        """Create the weights of the Keras layer, and the scales."""
        super().build(input_shape)
        self.scale = self.add_weight(
            name="scale",
            shape=self.kernel.shape,
            initializer=keras.initializers.Constant(0.02),
        )

    def call(self, inputs, training=False):
        """Return x·μ, plus √(x²·σ²) in training."""
        if not training:
            return super().call(inputs)
        means = self.product(inputs, self.kernel) + self.bias
        variance = self.product(tf.square(inputs), tf.square(self.scale))
        return self.activation(means + tf.sqrt(variance))


class TwoProductsDense(TwoProducts, keras.layers.Dense):
    """A dense layer with two products."""

    product = staticmethod(keras.ops.matmul)


class TwoProductsConv2D(TwoProducts, keras.layers.Conv2D):
    """A convolution with two products."""

    product = staticmethod(functools.partial(keras.ops.conv, padding="same"))


TWO_PRODUCTS = networks.Layers(TwoProductsDense, TwoProductsConv2D, None)


def steps_of(network, layers, jit):
    """Return training and prediction step of a plain Keras model of these layers."""
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
