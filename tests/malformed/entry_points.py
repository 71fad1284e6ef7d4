"""Malformed arguments of `compile`, of `fit`, and of the steps beside it."""

import keras
import numpy as np
import tensorflow as tf

import bilevel_tf as bt
from tests.malformed.row import Row

X, Y = np.ones((8, 3), "float32"), np.zeros((8, 1), "float32")
BATCH = (tf.constant(X), tf.constant(Y))


def build():
    """A small model, not compiled."""
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    inputs = keras.Input((3,))
    x = bt.HyperDense(2, name="hidden")(inputs)
    layer = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]), name="last")
    return bt.BilevelModel(inputs, layer(x), hyperparameters=hp)


def compiled(**arguments):
    """The same after `compile`."""
    model = build()
    given = {"optimizer": "sgd", "loss": "mse", "method": bt.DeltaSTN(), **arguments}
    model.compile(**given)
    return model


def fit(method=None, **arguments):
    """Fit it."""
    model = compiled(method=method or bt.DeltaSTN())
    given = {"validation_data": (X, Y), "verbose": 0, **arguments}
    return model.fit(X, Y, **given)


def refitted(train=None, **trainable):
    """Freeze or unfreeze layers by name after `compile`, and train."""
    model = compiled()
    for name, value in trainable.items():
        model.get_layer(name).trainable = value
    train = train or (lambda model: model.fit(X, Y, validation_data=(X, Y)))
    return train(model)


def same_optimizer(*names):
    """Give one optimizer as several arguments of `compile`."""
    return compiled(**dict.fromkeys(names, keras.optimizers.SGD(0.1)))


def reused(name):
    """Give one optimizer to two models."""
    optimizer = keras.optimizers.Adam(0.1)
    compiled(**{name: optimizer})
    return compiled(**{name: optimizer})


def set_tuned_rate():
    """Set a learning rate that is tuned."""
    hp = bt.HyperparameterSpace(rate=bt.LogUniform(1e-4, 1.0, initial=1e-2))
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(1)(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    optimizer = keras.optimizers.SGD(0.1)
    tuned = bt.optimizers.TunedOptimizer(optimizer, learning_rate=hp["rate"])
    model.compile(tuned, loss="mse", method=bt.methods.Greedy())
    model.optimizer.learning_rate = 0.5


ROWS = [
    # compile
    Row(
        "compile: one optimizer for weights and hyperparameters",
        lambda: same_optimizer("optimizer", "hyper_optimizer"),
        ValueError,
        ("`optimizer`", "`hyper_optimizer`", "two optimizer objects", "SGD"),
    ),
    Row(
        "compile: one optimizer for responses and hyperparameters",
        lambda: same_optimizer("response_optimizer", "hyper_optimizer"),
        ValueError,
        ("`response_optimizer`", "`hyper_optimizer`", "two optimizer objects"),
    ),
    Row(
        "compile: an optimizer of another model",
        lambda: reused("optimizer"),
        ValueError,
        ("`optimizer` has been built", "another model", "hidden/kernel", "Adam"),
    ),
    Row(
        "compile: a hyper-optimizer of another model",
        lambda: reused("hyper_optimizer"),
        ValueError,
        ("`hyper_optimizer` has been built", "another model", "unconstrained"),
    ),
    Row(
        "compile: a number as hyper-optimizer",
        lambda: compiled(hyper_optimizer=0.1),
        ValueError,
        ("`hyper_optimizer`", "must be a Keras optimizer", "0.1"),
    ),
    Row(
        "compile: a misspelt response optimizer",
        lambda: compiled(response_optimizer="agd"),
        ValueError,
        ("`response_optimizer`", "must be a Keras optimizer", "'agd'"),
    ),
    Row(
        "compile: no steps per execution",
        lambda: compiled(steps_per_execution=0),
        ValueError,
        ("`steps_per_execution`", "at least 1", "0"),
    ),
    Row(
        "compile: steps per execution as a string",
        lambda: compiled(steps_per_execution="4"),
        ValueError,
        ("`steps_per_execution`", "whole number", "'4'"),
    ),
    Row(
        "compile: the class of a method",
        lambda: compiled(method=bt.DeltaSTN),
        TypeError,
        ("`method`", "bilevel_tf.DeltaSTN()"),
    ),
    Row(
        "compile: the name of an objective",
        lambda: compiled(objective="val_loss"),
        TypeError,
        ("`objective`", "ValidationLoss()", "'val_loss'"),
    ),
    Row(
        "ValidationLoss that takes all data",
        lambda: bt.objectives.ValidationLoss(validation_split=1.0),
        ValueError,
        ("`validation_split`", "less than 1", "1.0"),
    ),
    Row(
        "ValidationLoss with a negative share",
        lambda: bt.objectives.ValidationLoss(validation_split=-0.2),
        ValueError,
        ("`validation_split`", "non-negative", "-0.2"),
    ),
    # fit
    Row(
        "fit: epochs as a string",
        lambda: fit(epochs="3"),
        ValueError,
        ("`epochs`", "whole number", "'3'"),
    ),
    Row(
        "fit: half an epoch",
        lambda: fit(epochs=0.5),
        ValueError,
        ("`epochs`", "whole number", "0.5"),
    ),
    Row(
        "fit: a negative first epoch",
        lambda: fit(initial_epoch=-1),
        ValueError,
        ("`initial_epoch`", "at least 0", "-1"),
    ),
    Row(
        "fit: no steps per epoch",
        lambda: fit(steps_per_epoch=0),
        ValueError,
        ("`steps_per_epoch`", "at least 1", "0"),
    ),
    Row(
        "fit: evaluation every 0 epochs",
        lambda: fit(validation_freq=0),
        ValueError,
        ("`validation_freq`", "at least 1", "0"),
    ),
    Row(
        "fit: an argument of old Keras",
        lambda: fit(workers=4),
        TypeError,
        ("`workers`", "validation_freq", "4"),
    ),
    Row(
        "fit: class weights as a list",
        lambda: fit(class_weight=[1.0, 2.0]),
        TypeError,
        ("`class_weight`", "dict", "[1.0, 2.0]"),
    ),
    Row(
        "fit: class weights under a method that differentiates training",
        lambda: fit(bt.Neumann(2), class_weight={0: 1.0}),
        ValueError,
        ("Neumann", "`class_weight`", "`sample_weight`"),
    ),
    Row(
        "fit: the class of a callback",
        lambda: fit(callbacks=[keras.callbacks.TerminateOnNaN]),
        TypeError,
        ("`callbacks`", "Callback objects", "TerminateOnNaN"),
    ),
    Row(
        "fit: a function as callback",
        lambda: fit(callbacks=print),
        TypeError,
        ("`callbacks`", "Callback objects", "print"),
    ),
    Row(
        "fit: a layer frozen after compile",
        lambda: refitted(hidden=False),
        ValueError,
        ("`compile`", "again", "'hidden' frozen now"),
    ),
    Row(
        "train_on_batch: a layer frozen after compile",
        lambda: refitted(lambda model: model.train_on_batch(X, Y), last=False),
        ValueError,
        ("`compile`", "again", "'last' frozen now"),
    ),
    Row(
        "a learning rate that is tuned, set by hand",
        set_tuned_rate,
        TypeError,
        ("`learning_rate`", "tuned", "LearningRateScheduler", "0.5"),
    ),
    # Steps beside fit
    Row(
        "train_on_batch: a hyperparameter as sample weights",
        lambda: (lambda m: m.train_on_batch(X, Y, m.hyperparameters["l2"]))(compiled()),
        TypeError,
        ("`sample_weight`", "`fit`", "'l2'"),
    ),
    Row(
        "train_on_batch: not compiled",
        lambda: build().train_on_batch(X, Y),
        ValueError,
        ("compile()",),
    ),
    Row(
        "train_step: not compiled",
        lambda: build().train_step(BATCH),
        ValueError,
        ("compile()",),
    ),
    Row(
        "outer_train_step: not compiled",
        lambda: build().outer_train_step((BATCH,)),
        ValueError,
        ("compile()",),
    ),
    Row(
        "outer_train_step: a batch that is not in a tuple",
        lambda: compiled().outer_train_step(BATCH),
        ValueError,
        ("`data`", "`outer_train_step`", "((x_valid, y_valid),)"),
    ),
    Row(
        "outer_train_step: nothing",
        lambda: compiled().outer_train_step(None),
        ValueError,
        ("`data`", "`outer_train_step`", "((x_valid, y_valid),)", "NoneType"),
    ),
    Row(
        "outer_train_step: training batches missing",
        lambda: compiled(method=bt.Neumann(2)).outer_train_step((BATCH,)),
        ValueError,
        ("Neumann", "1 training batches", "second part", "1 parts"),
    ),
    Row(
        "outer_train_step: training batches not stacked",
        lambda: compiled(method=bt.Neumann(2)).outer_train_step((BATCH, BATCH)),
        ValueError,
        ("Neumann", "stacked along a new first axis", "[2, 2]"),
    ),
]
