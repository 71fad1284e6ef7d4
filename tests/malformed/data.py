"""Malformed data and numbers given to `fit`."""

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from tests.malformed.row import Row


def model(objective=None, method=None, loss="mse", **arguments):
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((6,), name="features")
    penalty = {} if objective else {"kernel_regularizer": bt.L2(hp["l2"])}
    outputs = bt.HyperDense(1, **penalty)(inputs)
    built = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    method = method or bt.methods.T1T2()
    built.compile("sgd", loss, method=method, objective=objective, **arguments)
    return built


def data(count, features=6):
    return np.ones((count, features), "float32"), np.zeros((count, 1), "float32")


def fit(train=None, **arguments):
    """A function that trains on 8 examples, with 4 for validation unless others."""
    train = train or data(8)
    arguments = {"validation_data": data(4), "verbose": 0, **arguments}
    return lambda: model().fit(*train, **arguments)


def with_nan(part):
    x, y = data(4)
    (x if part == "x" else y)[2] = np.nan
    return x, y


def slices(*arrays, size=2):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays, length=2):
        super().__init__()
        self.arrays, self.length = arrays, length

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        return self.arrays


def endless():
    while True:
        yield data(2)


def two_inputs(**arguments):
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = [keras.Input((3,), name="left"), keras.Input((2,), name="right")]
    layer = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))
    outputs = layer(keras.layers.Concatenate()(inputs))
    built = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    built.compile("sgd", "mse", method=bt.methods.T1T2())
    x = [np.ones((8, 3)), np.ones((8, 2))]
    built.fit(x, np.ones((8, 1)), verbose=0, **arguments)


def elbo(data_size, x):
    hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e2, initial=1.0))
    prior = bt.NormalPrior(hp["precision"], data_size=data_size)
    inputs = keras.Input((6,))
    outputs = bt.VariationalDense(1, prior=prior)(inputs)
    built = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    loss = bt.losses.GaussianLikelihood(1.0)
    method = bt.methods.GravesUpdate()
    built.compile("sgd", loss, objective=bt.ELBO(), method=method)
    arrays = x if isinstance(x, tuple) else (x,)
    built.fit(*arrays, verbose=0)


def number(name, value, *says):
    return Row(
        f"{name}={value!r}",
        fit(**{name: value}),
        ValueError,
        (f"`{name}`", f"Received: {name}={value!r}", *says),
    )


WHOLE = "whole number, at least 1"
X, Y = data(4)

ROWS = [
    # Validation data
    Row(
        "validation x and y of different length",
        fit(validation_data=(X, Y[:3])),
        ValueError,
        ("`validation_data`", "same number of examples", "4 in `x`, 3 in `y`"),
    ),
    Row(
        "validation weights of another length",
        fit(validation_data=(X, Y, np.ones(5))),
        ValueError,
        ("`validation_data`", "same number of examples", "5 in `sample_weight`"),
    ),
    Row(
        "validation data without targets",
        fit(validation_data=(X,)),
        ValueError,
        ("`validation_data`", "targets", "(x, y)", "Received: y=None"),
    ),
    Row(
        "validation x and y exchanged",
        fit(validation_data=(Y, X)),
        ValueError,
        ("`validation_data`", "(None, 6)", "'features'", "exchanged", "(4, 1)"),
    ),
    Row(
        "validation features that the model does not have",
        fit(validation_data=data(4, 5)),
        ValueError,
        ("`validation_data`", "(None, 6)", "'features'", "(4, 5)"),
    ),
    Row(
        "a validation set of other features",
        fit(validation_data=slices(*data(4, 5))),
        ValueError,
        ("`validation_data`", "(None, 6)", "'features'", "(None, 5)"),
    ),
    Row(
        "a validation set without batches",
        fit(validation_data=tf.data.Dataset.from_tensor_slices((X, Y))),
        ValueError,
        ("`validation_data`", "(None, 6)", "batch axis", ".batch(", "(6,)"),
    ),
    Row(
        "NaN in validation inputs",
        fit(validation_data=with_nan("x")),
        ValueError,
        ("`validation_data` has NaN", "`x`", "example 2"),
    ),
    Row(
        "NaN in validation targets",
        fit(validation_data=with_nan("y")),
        ValueError,
        ("`validation_data` has NaN", "`y`", "example 2"),
    ),
    Row(
        "infinity in a validation PyDataset",
        fit(validation_data=Batches(X * np.inf, Y)),
        ValueError,
        ("`validation_data` has NaN or infinite", "`x`", "example 0"),
    ),
    Row(
        "validation data of four parts",
        fit(validation_data=(X, Y, Y, Y)),
        ValueError,
        ("`validation_data`", "(x, y) or (x, y, sample_weight)", "4 parts"),
    ),
    Row(
        "validation data in a dict",
        fit(validation_data={"x": X, "y": Y}),
        TypeError,
        ("`validation_data`", "tuple of arrays", "Received: dict"),
    ),
    Row(
        "the name of a file as validation data",
        fit(validation_data="valid.npz"),
        TypeError,
        ("`validation_data`", "tuple of arrays", "Received: str"),
    ),
    Row(
        "lists of numbers as validation data",
        fit(validation_data=([[1.0] * 6], [0.0])),
        TypeError,
        ("`validation_data`", "np.asarray", "type float"),
    ),
    Row(
        "words as validation inputs",
        fit(validation_data=(np.full((4, 6), "a"), Y)),
        ValueError,
        ("`validation_data`", "numbers", "`x` of dtype <U1"),
    ),
    Row(
        "objects as validation targets",
        fit(validation_data=(X, np.array([None] * 4))),
        ValueError,
        ("`validation_data`", "numbers", "`y` of dtype object"),
    ),
    Row(
        "a single number as validation targets",
        fit(validation_data=(X, np.float32(0.0))),
        ValueError,
        ("`validation_data`", "one row per example", "`y`"),
    ),
    Row(
        "no validation examples",
        fit(validation_data=data(0)),
        ValueError,
        ("`validation_data` is empty", "no examples"),
    ),
    Row(
        "an exhausted validation generator",
        fit(validation_data=(batch for batch in ())),
        ValueError,
        ("`validation_data` is empty", "generator"),
    ),
    Row(
        "an endless validation set without steps",
        fit(validation_data=slices(X, Y).repeat()),
        ValueError,
        ("`validation_data` never ends", "`validation_steps`"),
    ),
    Row(
        "an endless validation PyDataset without steps",
        fit(validation_data=Batches(X, Y, length=None)),
        ValueError,
        ("`validation_data` never ends", "`validation_steps`"),
    ),
    Row(
        "an endless validation generator without steps",
        fit(validation_data=endless()),
        ValueError,
        ("`validation_data`", "not ended", "`validation_steps`"),
    ),
    Row(
        "one validation array for two inputs",
        lambda: two_inputs(validation_data=(np.ones((4, 3)), np.ones((4, 1)))),
        ValueError,
        ("`validation_data`", "'left', 'right'", "1 array"),
    ),
    Row(
        "validation inputs in the wrong order",
        lambda: two_inputs(
            validation_data=([np.ones((4, 2)), np.ones((4, 3))], np.ones((4, 1)))
        ),
        ValueError,
        ("`validation_data`", "(None, 3)", "'left'", "(4, 2)"),
    ),
    Row(
        "validation targets of more classes",
        fit(validation_data=(X, np.zeros((4, 3)))),
        ValueError,
        ("`validation_data`", "same shape", "(4, 3)", "(8, 1)"),
    ),
    Row(
        "more validation targets than the model has",
        fit(validation_data=(X, [Y, Y])),
        ValueError,
        ("`validation_data`", "as many targets", "2 arrays", "1 for training"),
    ),
    # The split
    number("validation_split", 1.0, "between 0 and 1"),
    number("validation_split", -0.2, "between 0 and 1"),
    number("validation_split", float("nan"), "between 0 and 1"),
    number("validation_split", "0.2", "between 0 and 1"),
    Row(
        "a split that leaves no validation examples",
        fit(data(1), validation_data=None, validation_split=0.3),
        ValueError,
        ("`validation_split`", "leave examples", "1 example"),
    ),
    Row(
        "a split of a data set",
        fit((slices(X, Y),), validation_data=None, validation_split=0.5),
        ValueError,
        ("`validation_split`", "arrays only", "`validation_data`"),
    ),
    # Training data
    Row(
        "x and y of different length",
        fit((X, Y[:3])),
        ValueError,
        ("training data", "same number of examples", "4 in `x`, 3 in `y`"),
    ),
    Row(
        "sample weights of another length",
        fit(sample_weight=np.ones(7)),
        ValueError,
        ("training data", "same number of examples", "7 in `sample_weight`"),
    ),
    Row(
        "x and y exchanged",
        fit((Y, X)),
        ValueError,
        ("training data", "(None, 6)", "'features'", "exchanged"),
    ),
    Row(
        "training arrays without targets",
        fit((X,)),
        ValueError,
        ("training data", "targets", "`y`"),
    ),
    # Numbers
    number("batch_size", 32.0, WHOLE),
    number("batch_size", 0, WHOLE),
    number("batch_size", -1, WHOLE),
    number("batch_size", "32", WHOLE),
    number("batch_size", True, WHOLE),
    number("epochs", "3", "whole number"),
    number("epochs", 2.5, "whole number"),
    number("epochs", -1, "whole number"),
    number("steps_per_epoch", 0, WHOLE),
    number("steps_per_epoch", 1.5, WHOLE),
    number("initial_epoch", -1, "whole number"),
    number("validation_steps", 0, WHOLE),
    number("validation_batch_size", 8.0, WHOLE),
    number("validation_freq", 0, WHOLE),
    number("validation_freq", "2", WHOLE),
    # The number of examples that a prior is given
    Row(
        "a prior for another number of arrays' examples",
        lambda: elbo(100, data(8)),
        ValueError,
        ("data_size=100", "8 examples", "data_size=8"),
    ),
    Row(
        "a prior for another number of a data set's examples",
        lambda: elbo(100, slices(*data(8))),
        ValueError,
        ("data_size=100", "8 examples", "data_size=8"),
    ),
    Row(
        "a prior for another number of a PyDataset's examples",
        lambda: elbo(100, Batches(*data(4))),
        ValueError,
        ("data_size=100", "8 examples", "data_size=8"),
    ),
]
