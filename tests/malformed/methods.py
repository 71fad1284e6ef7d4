"""Malformed methods, and what they are given to differentiate."""

from typing import Any

import keras
import tensorflow as tf

import bilevel_tf as bt
from tests.malformed.row import Row


class Signed(keras.optimizers.SGD):
    """An optimizer of a user's own that goes along the sign of the gradient."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, learning_rate * keras.ops.sign(gradient))


def compiled(method: Any, **arguments: Any) -> None:
    """Compile a small model with a method."""
    hp = bt.HyperparameterSpace(decay=bt.Positive(0.1))
    inputs = keras.Input((2,))
    outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["decay"]))(inputs)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    model.compile(**{"optimizer": "sgd", "loss": "mse", "method": method, **arguments})


def found(method: Any, **arguments: Any) -> None:
    """Ask for the hypergradient of a parabola."""
    defaults = {
        "inner_loss": lambda w, h: (w - 1.0) ** 2 + h * w**2,
        "outer_loss": lambda w, h: w**2,
        "weights": tf.constant(0.5),
        "hyperparameters": tf.constant(1.0),
    }
    bt.hypergradient(method=method, **{**defaults, **arguments})


optimizers = keras.optimizers
methods = bt.methods

ROWS = [
    # Arguments
    Row(
        "Neumann with steps",
        lambda: bt.Neumann(steps=5),
        TypeError,
        ("Neumann", "`steps`", "terms", "steps=5"),
    ),
    Row(
        "HOAG with iteration",
        lambda: methods.HOAG(iteration=5),
        TypeError,
        ("HOAG", "`iteration`", "Did you mean `iterations`", "iteration=5"),
    ),
    Row(
        "DeltaSTN with entropy",
        lambda: bt.DeltaSTN(entropy=0.1),
        TypeError,
        ("DeltaSTN", "`entropy`", "entropy_weight", "entropy=0.1"),
    ),
    Row(
        "Hypernetwork with tau",
        lambda: methods.Hypernetwork(tau=0.1),
        TypeError,
        ("Hypernetwork", "`tau`", "entropy_weight", "tau=0.1"),
    ),
    Row(
        "STN with shared_pass",
        lambda: bt.STN(shared_pass=True),
        TypeError,
        ("STN", "`shared_pass`", "entropy_weight", "shared_pass=True"),
    ),
    Row(
        "Greedy with steps",
        lambda: methods.Greedy(steps=2),
        TypeError,
        ("Greedy", "`steps`", "restart", "steps=2"),
    ),
    Row(
        "no training steps",
        lambda: bt.DeltaSTN(train_steps=0),
        ValueError,
        ("train_steps", "at least 1", "0"),
    ),
    Row(
        "half a training step",
        lambda: bt.Neumann(train_steps=2.5),
        ValueError,
        ("train_steps", "2.5"),
    ),
    Row(
        "validation steps in words",
        lambda: methods.T1T2(valid_steps="1"),
        ValueError,
        ("valid_steps", "'1'"),
    ),
    Row(
        "a negative entropy weight",
        lambda: bt.STN(entropy_weight=-1.0),
        ValueError,
        ("entropy_weight", "-1.0"),
    ),
    Row(
        "an entropy weight in words",
        lambda: bt.STN(entropy_weight="0.1"),
        ValueError,
        ("entropy_weight", "'0.1'"),
    ),
    Row(
        "a negative damping",
        lambda: bt.ConjugateGradient(damping=-0.1),
        ValueError,
        ("damping", "-0.1"),
    ),
    Row(
        "a damping that is a hyperparameter",
        lambda: bt.ConjugateGradient(
            damping=bt.HyperparameterSpace(d=bt.Positive(0.1))["d"]
        ),
        ValueError,
        ("damping", "non-negative", "Hyperparameter d"),
    ),
    Row(
        "a learning rate of 0",
        lambda: bt.Neumann(learning_rate=0.0),
        ValueError,
        ("learning_rate", "0.0"),
    ),
    Row(
        "a NaN tolerance",
        lambda: bt.ConjugateGradient(tolerance=float("nan")),
        ValueError,
        ("tolerance", "nan"),
    ),
    Row(
        "Unrolled with no steps",
        lambda: bt.Unrolled(0),
        ValueError,
        ("steps", "at least 1", "0"),
    ),
    Row(
        "truncation above steps",
        lambda: bt.Unrolled(3, truncation=5),
        ValueError,
        ("truncation", "at most `steps`", "truncation=5", "steps=3"),
    ),
    Row(
        "DARTS without a learning rate",
        lambda: methods.DARTS(),
        ValueError,
        ("learning_rate", "second_order=None"),
    ),
    Row(
        "DARTS of third order",
        lambda: methods.DARTS(0.1, "third"),
        ValueError,
        ("second_order", "'exact'", "'third'"),
    ),
    Row(
        "a response share of 0",
        lambda: bt.DeltaSTN(response_share=0.0),
        ValueError,
        ("response_share", "above 0", "0.0"),
    ),
    Row(
        "a response share in words",
        lambda: bt.DeltaSTN(response_share="0.5"),
        ValueError,
        ("response_share", "'0.5'"),
    ),
    Row(
        "real time and restart",
        lambda: methods.ForwardMode(real_time=True, restart=True),
        ValueError,
        ("restart", "real_time=True"),
    ),
    Row(
        "RMAD in a few bits",
        lambda: methods.RMAD(3, fraction_bits=60),
        ValueError,
        ("fraction_bits", "52", "60"),
    ),
    # Optimizers
    Row(
        "Lion under Greedy",
        lambda: compiled(methods.Greedy(), optimizer=optimizers.Lion()),
        ValueError,
        ("Lion", "sign", "AdamW", "Received: optimizer="),
    ),
    Row(
        "Lion under Unrolled",
        lambda: compiled(bt.Unrolled(2), optimizer="lion"),
        ValueError,
        ("Lion", "sign", "AdamW"),
    ),
    Row(
        "Lion under ForwardMode",
        lambda: compiled(
            methods.ForwardMode(real_time=True), optimizer=optimizers.Lion()
        ),
        ValueError,
        ("Lion", "sign"),
    ),
    Row(
        "a tuned Lion",
        lambda: compiled(
            bt.Unrolled(2),
            optimizer=bt.TunedOptimizer(
                optimizers.Lion(), learning_rate=lambda h: h["decay"]
            ),
        ),
        ValueError,
        ("Lion", "sign"),
    ),
    Row(
        "a sign of a user's own",
        lambda: compiled(bt.Unrolled(2), optimizer=Signed(0.1)),
        ValueError,
        ("Signed", "sign", "Received: optimizer="),
    ),
    Row(
        "averaged weights under Unrolled",
        lambda: compiled(bt.Unrolled(2), optimizer=optimizers.SGD(use_ema=True)),
        ValueError,
        ("averages the weights", "use_ema=True"),
    ),
    Row(
        "accumulated gradients under Unrolled",
        lambda: compiled(
            bt.Unrolled(2), optimizer=optimizers.SGD(gradient_accumulation_steps=2)
        ),
        ValueError,
        ("adds up", "gradient_accumulation_steps=2"),
    ),
    Row(
        "one step of Adam from fresh slots",
        lambda: compiled(methods.Greedy(restart=True), optimizer="adam"),
        ValueError,
        ("first step of Adam", "restart=False", "restart=True"),
    ),
    Row(
        "Adam under RMAD",
        lambda: compiled(methods.RMAD(3), optimizer="adam"),
        ValueError,
        ("RMAD", "keras.optimizers.SGD", "Unrolled"),
    ),
    Row(
        "SGD without momentum under RMAD",
        lambda: compiled(methods.RMAD(3)),
        ValueError,
        ("RMAD", "momentum above 0", "momentum=0"),
    ),
    Row(
        "Nesterov momentum under DrMAD",
        lambda: compiled(
            methods.DrMAD(3), optimizer=optimizers.SGD(momentum=0.9, nesterov=True)
        ),
        ValueError,
        ("DrMAD", "nesterov=False", "nesterov=True"),
    ),
    Row(
        "a tuned optimizer under Neumann",
        lambda: compiled(
            bt.Neumann(),
            optimizer=bt.TunedOptimizer("sgd", learning_rate=lambda h: h["decay"]),
        ),
        ValueError,
        ("Neumann", "`learning_rate`", "Unrolled"),
    ),
    # Plain functions
    Row(
        "the class of a method",
        lambda: found(bt.Neumann),
        TypeError,
        ("`method`", "bilevel_tf.Neumann()", "Received: method="),
    ),
    Row(
        "the name of a method",
        lambda: found("neumann"),
        TypeError,
        ("`method`", "method='neumann'"),
    ),
    Row(
        "a best response of plain functions",
        lambda: found(bt.DeltaSTN()),
        TypeError,
        ("`method`", "BilevelModel", "DeltaSTN"),
    ),
    Row(
        "Unrolled without an optimizer",
        lambda: found(bt.Unrolled(2)),
        ValueError,
        ("`optimizer`", "keras.optimizers.SGD(0.1)", "optimizer=None"),
    ),
    Row(
        "the name of an optimizer",
        lambda: found(bt.Unrolled(2), optimizer="sgd"),
        TypeError,
        ("`optimizer`", "Keras optimizer", "'sgd'"),
    ),
    Row(
        "an outer loss for each example",
        lambda: found(bt.Neumann(), outer_loss=lambda w, h: tf.stack([w, w])),
        ValueError,
        ("`outer_loss`", "scalar", "(2,)"),
    ),
    Row(
        "an inner loss without hyperparameters",
        lambda: found(bt.Neumann(), inner_loss=lambda w, h: w**2),
        ValueError,
        ("`inner_loss`", "hyperparameter"),
    ),
    Row(
        "an inner loss without weights",
        lambda: found(bt.Neumann(), inner_loss=lambda w, h: h**2),
        ValueError,
        ("`inner_loss`", "weights [0]"),
    ),
    Row(
        "Gauss-Newton of one function",
        lambda: found(methods.GaussNewton()),
        ValueError,
        ("GaussNewton", "ComposedLoss"),
    ),
    Row(
        "Fisher of a scalar",
        lambda: found(methods.EmpiricalFisher()),
        ValueError,
        ("EmpiricalFisher", "one loss per example", "scalar"),
    ),
    Row(
        "integer weights",
        lambda: found(bt.Neumann(), weights=tf.constant(1)),
        ValueError,
        ("`weights`", "int32"),
    ),
    Row(
        "integer hyperparameters",
        lambda: found(bt.Neumann(), hyperparameters=tf.constant(1)),
        ValueError,
        ("`hyperparameters`", "int32"),
    ),
    Row(
        "no weights",
        lambda: found(bt.Neumann(), weights=[], inner_loss=lambda w, h: h),
        ValueError,
        ("`weights`",),
    ),
    Row(
        "no hyperparameters",
        lambda: found(bt.Neumann(), hyperparameters={}, inner_loss=lambda w, h: w**2),
        ValueError,
        ("`hyperparameters`",),
    ),
    Row(
        "a loss that is no function",
        lambda: found(bt.Neumann(), outer_loss=0.5),
        TypeError,
        ("`outer_loss`", "function", "0.5"),
    ),
    Row(
        "weights of single and hyperparameters of double precision",
        lambda: found(bt.Neumann(), hyperparameters=tf.constant(1.0, tf.float64)),
        ValueError,
        ("float32", "float64"),
    ),
]
