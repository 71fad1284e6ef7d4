"""A linear network with a tuned Jacobian-norm penalty, against the exact optimum.

The second toy problem of the Δ-STN paper (section 5.1, Fig. 4): five hidden linear
layers, no biases, one output, and the training objective

    mean((y − xv)²) + jacobian · ‖v‖²,    v = W1 W2 ⋯ W6 = d output / d input.

    python examples/linear_network.py --data-dir <folder of npz files>

The exact optimum: the objective depends on the weights only through v, and hidden
layers of at least one unit can produce every v. The minimum is therefore that of ridge
regression, v* = (C + jacobian·I)⁻¹ b with C = mean(xxᵀ).

How the penalty is written: it belongs to the whole network, so that it cannot be the
regularizer of a layer. `WithProbes` appends the d unit vectors to every example. All
d + 1 rows go through the same hyper-layers, and since there are no biases, the network
answers a unit vector with an entry of v. The rows of an example share its
perturbation, so that the answers are the Jacobian v_i at the example's own response
weights. `ScaledJacobian` multiplies v_i by the square root of the example's own
factor. The result is a second output of the model, and its loss is its squared norm.
The output is linear in v_i, so that the Δ-STN linearises it like any output, and takes
the squared norm afterwards: factor_i · ‖v + J_vw Θε_i‖². (A loss added by a layer
would itself be linearised, and lose its curvature.) In inference mode the second
output is zero, just as dropout is off: validation sees only the squared error. A
network with biases would subtract its answer to a row of zeros. A nonlinear or wide
network would use random directions instead of all d unit vectors.

Columns and settings are those of `linear_regression.py`. Only the model differs, and
the learning rate: this deeper model uses Adam(0.01).
"""

import argparse
import pathlib

import keras
import linear_regression as linear
import numpy as np
import ridge
import tensorflow as tf

import bilevel_tf as bt

SCALE = bt.Positive(initial=0.1, learn_perturbation_scale=False)


@keras.saving.register_keras_serializable("examples")
class WithProbes(keras.layers.Layer):
    """Append the unit vectors to every example: `[batch, d]` to `[batch, 1 + d, d]`."""

    def call(self, inputs):
        features = inputs.shape[-1]
        unit = tf.eye(features, batch_shape=[tf.shape(inputs)[0]], dtype=inputs.dtype)
        return tf.concat([inputs[:, None], unit], 1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1 + input_shape[-1], input_shape[-1])


@keras.saving.register_keras_serializable("examples")
class ScaledJacobian(keras.layers.Layer):
    """Multiply the answers to the probes by √factor; return zero in inference mode.

    Args:
        factor: A scalar hyperparameter.
    """

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        if isinstance(factor, dict):
            factor = keras.saving.deserialize_keras_object(factor)
        self.factor = factor

    def call(self, answers, training=False):
        jacobian = answers[:, 1:, 0]
        if not training:
            return tf.zeros_like(jacobian)
        root = tf.sqrt(tf.cast(self.factor.value(), jacobian.dtype))
        return tf.reshape(root, [-1, 1]) * jacobian

    def get_config(self):
        factor = keras.saving.serialize_keras_object(self.factor)
        return {**super().get_config(), "factor": factor}


def squared_norm(zeros, vectors):
    """Return ‖v_i‖² of every example."""
    return keras.ops.sum(keras.ops.square(vectors - zeros), -1)


def build(features, units, depth=5):
    """Return the network; its outputs are the prediction and the scaled Jacobian."""
    hp = bt.HyperparameterSpace(jacobian=SCALE)
    inputs = keras.Input((features,))
    x = WithProbes()(inputs)
    for _ in range(depth):
        x = bt.HyperDense(units, use_bias=False)(x)
    x = bt.HyperDense(1, use_bias=False)(x)
    outputs = [x[:, 0], ScaledJacobian(hp["jacobian"])(x)]
    return bt.BilevelModel(inputs, outputs, hyperparameters=hp)


def targets(x, y):
    """Return a batch with targets for the second output, which are zeros."""
    return x, (y, np.zeros_like(x))


def run(data, seed, method, args):
    """Tune once.

    Returns:
        A row of the table and the model.
    """
    problem = ridge.split(*ridge.load(data, args.data_dir), seed)
    keras.utils.set_random_seed(seed)
    model = build(problem.x.shape[1], args.units)
    linear.compile_model(model, method, args, ["mse", squared_norm])
    train_data = targets(problem.x, problem.y)
    valid_data = targets(problem.x_valid, problem.y_valid)
    history = linear.train(model, train_data, valid_data, args)
    row = {"data": data, "seed": seed, "method": method, "name": "jacobian"}
    penalty = linear.PENALTIES["l2"]
    row |= ridge.compare(problem, SCALE, penalty, history, "jacobian")
    return row, model


def main(argv=None):
    """Run all splits and methods; return the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ridge.add_arguments(parser, epochs=40, learning_rate=0.01)
    parser.add_argument(
        "--units", type=int, default=10, help="number of units of each hidden layer"
    )
    args = parser.parse_args(argv)
    rows = []
    ridge.print_header()
    for data in args.data or ridge.available(args.data_dir):
        for seed in range(args.seeds):
            for method in args.methods or linear.METHODS:
                row, model = run(data, seed, method, args)
                rows.append(row)
                ridge.print_row(row)
    ridge.draw(rows, pathlib.Path(args.output) / "linear_network.png")
    model.export(pathlib.Path(args.saved_models) / "linear_network", verbose=False)
    ridge.print_summary(rows)
    return rows


if __name__ == "__main__":
    main()
