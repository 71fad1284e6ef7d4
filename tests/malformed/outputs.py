"""Malformed losses, weights and masks of outputs; layers that stop a pass."""

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from tests.malformed.row import Row

STEPS = 4


def space():
    return bt.HyperparameterSpace(
        l2=bt.LogUniform(1e-5, 1.0, initial=1e-2), noise=bt.Positive(0.1)
    )


def dense(hp, units=2, **arguments):
    return bt.HyperDense(units, kernel_regularizer=bt.L2(hp["l2"]), **arguments)


def compiled(network, shape=(3,), method=None, loss="mse", **arguments):
    hp, inputs = space(), keras.Input(shape)
    model = bt.BilevelModel(inputs, network(inputs, hp), hyperparameters=hp)
    model.compile("sgd", loss, method=method or bt.DeltaSTN(), **arguments)
    return model


def heads(x, hp):
    return {"a": dense(hp, name="a")(x), "b": dense(hp, 1, name="b")(x)}


def heads_in_a_list(x, hp):
    return list(heads(x, hp).values())


def sequence(last):
    """Compile a network of sequences whose hyper-layer is followed by a layer."""
    return lambda: compiled(lambda x, hp: last(dense(hp)(x)), (STEPS, 3))


def folded(layer, method):
    def network(x, hp):
        rows = layer(hp)(keras.ops.reshape(x, (-1, 3)))
        return dense(hp)(keras.ops.reshape(rows, (-1, STEPS, 3)))

    return lambda: compiled(network, (STEPS, 3), method)


class Chooser(keras.layers.Layer):
    """Masks examples."""

    supports_masking = True

    def call(self, inputs):
        return inputs

    def compute_mask(self, inputs, previous_mask=None):
        return inputs[:, 0] >= 0


def likelihood(objective, masked=False, losses=1):
    """Compile a model of priors with an objective on training data."""
    hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e2, initial=1.0))
    prior, inputs = bt.NormalPrior(hp["precision"], data_size=8), keras.Input((3,))
    x = Chooser(name="chooser")(inputs) if masked else inputs

    def last(name):
        if isinstance(objective, bt.ELBO):
            return bt.VariationalDense(2, prior=prior, name=name)(x)
        return keras.layers.Dense(
            2, kernel_regularizer=prior, bias_regularizer=prior, name=name
        )(x)

    model = bt.BilevelModel(
        inputs,
        last("last") if losses == 1 else [last("a"), last("b")],
        hyperparameters=hp,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        loss=loss if losses == 1 else [loss, None],
        objective=objective,
        method=bt.methods.DARTS(second_order=None),
    )


def mean_of_all(targets, outputs):
    return tf.reduce_mean(tf.square(targets - outputs))


def fit(method, loss):
    hp, inputs = bt.HyperparameterSpace(l2=bt.Positive(1.0)), keras.Input((3,))
    layer = bt.HyperDense(2, kernel_regularizer=bt.L2(hp["l2"]))
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    model.compile("sgd", loss, method=method, run_eagerly=True)
    x, y = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    model.fit(x, y, 4, validation_data=(x, y), verbose=0)


def weighted_scalar_loss():
    hp, inputs = bt.HyperparameterSpace(w=bt.Positive(np.ones(4))), keras.Input((3,))
    outputs = keras.layers.Dense(2)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(
        "sgd", mean_of_all, method=bt.methods.T1T2(train_steps=1), run_eagerly=True
    )
    x, y = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")
    model.fit(x, y, 4, sample_weight=hp["w"], validation_data=(x, y), verbose=0)


SOFTMAX_LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)
WEIGHTED_MEAN = keras.losses.MeanSquaredError("mean_with_sample_weight")

ROWS = [
    Row(
        "LSTM without unroll above a hyper-layer",
        sequence(keras.layers.LSTM(2, name="looping")),
        ValueError,
        ("DeltaSTN", "LSTM 'looping'", "unroll=True", "CenteredSTN", "unroll=False"),
    ),
    Row(
        "Bidirectional without unroll above a hyper-layer",
        sequence(
            keras.layers.Bidirectional(keras.layers.GRU(2, name="both"), name="outer")
        ),
        ValueError,
        ("both'", "unroll=True", "in Bidirectional 'outer'", "unroll=False"),
    ),
    Row(
        "ConvLSTM without unroll above a hyper-layer",
        sequence(
            lambda x: keras.layers.ConvLSTM1D(2, 1, name="looping")(
                keras.layers.Reshape((STEPS, 2, 1))(x)
            )
        ),
        ValueError,
        ("ConvLSTM1D 'looping'", "unroll=True"),
    ),
    Row(
        "time folded into the batch axis under Δ-STN",
        folded(lambda hp: dense(hp, 3, name="rows"), bt.DeltaSTN()),
        ValueError,
        ("HyperDense 'rows'", "one row per example", "TimeDistributed", "(28, 3)"),
    ),
    Row(
        "time folded into the batch axis under a hypernetwork",
        folded(lambda hp: dense(hp, 3, name="rows"), bt.methods.Hypernetwork()),
        ValueError,
        ("HyperDense 'rows'", "one row per example", "Neumann", "7 examples"),
    ),
    Row(
        "time folded into the batch axis below tuned noise",
        folded(lambda hp: bt.HyperGaussianNoise(hp["noise"], name="rows"), bt.STN()),
        ValueError,
        ("HyperGaussianNoise 'rows'", "'noise'", "one row per example", "(28, 3)"),
    ),
    Row(
        "a softmax layer of its own under Δ-STN",
        lambda: compiled(lambda x, hp: keras.layers.Softmax(name="end")(dense(hp)(x))),
        ValueError,
        ("softmax", "HyperDense(..., activation='softmax')", "Softmax 'end'"),
    ),
    Row(
        "a softmax operation at the end under Δ-STN",
        lambda: compiled(lambda x, hp: keras.ops.softmax(dense(hp)(x))),
        ValueError,
        ("softmax", "HyperDense(..., activation='softmax')", "Softmax '"),
    ),
    Row(
        "a plain layer with a softmax at each step under Δ-STN",
        sequence(
            lambda x: keras.layers.TimeDistributed(
                keras.layers.Dense(2, "softmax", name="end")
            )(x)
        ),
        ValueError,
        ("softmax", "must be the activation of a hyper-layer", "Dense 'end'"),
    ),
    Row(
        "a softmax under a loss on logits",
        lambda: compiled(
            lambda x, hp: dense(hp, activation="softmax", name="end")(x),
            loss=SOFTMAX_LOSS,
        ),
        ValueError,
        ("'end'", "softmax", "from_logits=True", "CategoricalCrossentropy"),
    ),
    Row(
        "a softmax at each step under a loss on logits",
        lambda: compiled(
            lambda x, hp: keras.layers.TimeDistributed(
                dense(hp, activation="softmax", name="end")
            )(x),
            (STEPS, 3),
            loss=SOFTMAX_LOSS,
        ),
        ValueError,
        ("'end'", "softmax", "from_logits=True"),
    ),
    Row(
        "a loss for an output that is not there",
        lambda: compiled(heads, loss={"a": "mse", "c": "mse"}),
        ValueError,
        ("`loss`", "names of the outputs: a, b", "Received: loss for c"),
    ),
    Row(
        "a loss by name for a list of outputs, misspelt",
        lambda: compiled(heads_in_a_list, loss={"a": "mse", "B": "mse"}),
        ValueError,
        ("`loss`", "names of the outputs: a, b", "Received: loss for B"),
    ),
    Row(
        "a dict of losses that leaves out an output of a list",
        lambda: compiled(heads_in_a_list, loss={"a": "mse"}),
        ValueError,
        ("`loss`", "name every output", "add {'b': None}", "Received: loss without b"),
    ),
    Row(
        "more losses than outputs",
        lambda: compiled(heads_in_a_list, loss=["mse", "mse", "mae"]),
        ValueError,
        ("`loss`", "one entry per output, 2 for a, b", "Received: 3 entries"),
    ),
    Row(
        "a loss weight for an output that is not there",
        lambda: compiled(
            heads, loss={"a": "mse", "b": "mse"}, loss_weights={"a": 1.0, "c": 0.5}
        ),
        ValueError,
        ("`loss_weights`", "a, b", "Received: loss_weights for c"),
    ),
    Row(
        "more loss weights than outputs",
        lambda: compiled(
            heads_in_a_list, loss=["mse", "mse"], loss_weights=[1.0, 0.5, 0.1]
        ),
        ValueError,
        ("`loss_weights`", "one entry per output", "Received: 3 entries"),
    ),
    Row(
        "ELBO with a masked output",
        lambda: likelihood(bt.ELBO(), masked=True),
        ValueError,
        ("ELBO", "mask", "Chooser 'chooser'", "ValidationLoss", "output 'last'"),
    ),
    Row(
        "LaplaceEvidence with a masked output",
        lambda: likelihood(bt.objectives.LaplaceEvidence(), masked=True),
        ValueError,
        ("LaplaceEvidence", "mask", "Chooser 'chooser'", "output 'last'"),
    ),
    Row(
        "ELBO with an output that has no loss",
        lambda: likelihood(bt.ELBO(), losses=2),
        ValueError,
        ("ELBO", "`loss`", "output 'b' without a likelihood"),
    ),
    Row(
        "LaplaceEvidence with two outputs",
        lambda: likelihood(bt.objectives.LaplaceEvidence(), losses=2),
        ValueError,
        ("LaplaceEvidence", "one output", "2 of them"),
    ),
    Row(
        "EmpiricalFisher with a loss that is a mean over all",
        lambda: fit(bt.methods.EmpiricalFisher(train_steps=1), mean_of_all),
        ValueError,
        ("`loss`", "one value per example", "mean_of_all", "a scalar"),
    ),
    Row(
        "EmpiricalFisher with a mean by the weights",
        lambda: fit(bt.methods.EmpiricalFisher(train_steps=1), WEIGHTED_MEAN),
        ValueError,
        (
            "`loss`",
            "sum_over_batch_size",
            "MeanSquaredError",
            "mean_with_sample_weight",
        ),
    ),
    Row(
        "tuned example weights with a loss that is a mean over all",
        weighted_scalar_loss,
        ValueError,
        ("`loss`", "one value per example", "mean_of_all", "a scalar"),
    ),
    Row(
        "EmpiricalFisher on a function that returns a scalar",
        lambda: bt.hypergradient(
            lambda w, h: h * w**2,
            lambda w, h: w,
            weights=tf.constant(1.0),
            hyperparameters=tf.constant(1.0),
            method=bt.methods.EmpiricalFisher(),
        ),
        ValueError,
        ("EmpiricalFisher", "`inner_loss`", "one loss per example", "a scalar"),
    ),
    Row(
        "GaussNewton on a function that is not in parts",
        lambda: bt.hypergradient(
            lambda w, h: h * w**2,
            lambda w, h: w,
            weights=tf.constant(1.0),
            hyperparameters=tf.constant(1.0),
            method=bt.methods.GaussNewton(),
        ),
        ValueError,
        ("GaussNewton", "`inner_loss`", "bilevel_tf.methods.ComposedLoss"),
    ),
    Row(
        "CrossValidation with a loss that ignores a class",
        lambda: compiled(
            lambda x, hp: dense(hp)(x),
            method=bt.methods.T1T2(),
            objective=bt.CrossValidation(2),
            loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=0),
        ),
        ValueError,
        ("CrossValidation", "`sample_weight`", "ignore_class=0"),
    ),
]
