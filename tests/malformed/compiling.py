"""Malformed arguments of `compile`, and hyperparameters that cannot be tuned there."""

import keras
import numpy as np

import bilevel_tf as bt
from tests.malformed.row import Row

Dense, Hyper = keras.layers.Dense, bt.HyperDense
IMPLICIT = {"method": bt.methods.T1T2()}
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def model_of(build, scale=None):
    """A model whose outputs `build` makes of inputs and a hyperparameter 'strength'."""
    hp = bt.HyperparameterSpace(strength=scale or bt.Uniform(0.0, 1.0, initial=0.5))
    inputs = keras.Input((3,))
    return bt.BilevelModel(inputs, build(inputs, hp["strength"]), hyperparameters=hp)


def compiled(build, scale=None, **arguments):
    model = model_of(build, scale)
    model.compile(**{"loss": "mse", **arguments})
    return model


def compiled_with_weights(argument):
    model = model_of(two_heads)
    weights = {"first": model.hyperparameters["strength"], "second": 1.0}
    model.compile(loss="mse", **{argument: weights})


def penalised(inputs, strength):
    return Hyper(1, name="out", kernel_regularizer=bt.L2(strength))(inputs)


def plain(inputs, strength):
    return Dense(1, name="out", kernel_regularizer=bt.L2(strength))(inputs)


def unused(inputs, strength):
    return Hyper(1)(inputs)


def frozen(inputs, strength):
    layer = Hyper(4, kernel_regularizer=bt.L2(strength), trainable=False)
    return Hyper(1)(layer(inputs))


def two_heads(inputs, strength):
    first = Hyper(1, name="first")(inputs)
    second = Hyper(1, name="second", kernel_regularizer=bt.L2(strength))(inputs)
    return [first, second]


def softmax(inputs, strength):
    layer = Hyper(3, "softmax", name="out", kernel_regularizer=bt.L2(strength))
    return layer(inputs)


class AddsScalar(keras.layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        self.add_loss(self.factor.value() * keras.ops.mean(inputs**2))
        return inputs


class Cubes(keras.regularizers.Regularizer):
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        factor = bt.hyperparameters.mean_value(self.factor)
        return factor * keras.ops.sum(keras.ops.abs(x) ** 3)


def adds_scalar(inputs, strength):
    return Hyper(1)(AddsScalar(strength, name="divergence")(inputs))


def cubes(inputs, strength):
    return Hyper(1, name="out", activity_regularizer=Cubes(strength))(inputs)


def weigh_examples():
    """Weights of examples, with the default method and plain layers."""
    scale = bt.Uniform(0.0, 1.0, initial=np.full(8, 0.5))
    model = compiled(lambda inputs, strength: Dense(1)(inputs), scale)
    x, y = np.ones((8, 3)), np.ones((8, 1))
    weights = model.hyperparameters["strength"]
    model.fit(x, y, sample_weight=weights, validation_data=(x, y))


def forget_weights():
    scale = bt.Uniform(0.0, 1.0, initial=np.full(8, 0.5))
    model = compiled(lambda inputs, strength: Dense(1)(inputs), scale, **IMPLICIT)
    x, y = np.ones((8, 3)), np.ones((8, 1))
    model.fit(x, y, validation_data=(x, y))


def factor_in(make, scale):
    """A row's `do`: a penalty or prior with a hyperparameter of that scale."""
    return lambda: make(bt.HyperparameterSpace(strength=scale)["strength"])


NEGATIVE = bt.Uniform(-1.0, 1.0, initial=0.5)
RAW = bt.Unconstrained(0.5)
FROM_ZERO = bt.Uniform(0.0, 1.0, initial=0.5)
WHOLE = bt.Integer(0, 3, initial=1)
PENALTIES = {
    "L2": (bt.L2, "l2"),
    "L1": (bt.regularizers.L1, "l1"),
    "L1L2 in l1": (lambda a: bt.regularizers.L1L2(l1=a), "l1"),
    "L1L2 in l2": (lambda a: bt.regularizers.L1L2(l2=a), "l2"),
    "NormalPrior": (lambda a: bt.NormalPrior(a, data_size=9), "precision"),
    "ScaleMixturePrior": (
        lambda a: bt.regularizers.ScaleMixturePrior((a, 1.0), data_size=9),
        "precisions",
    ),
    "share of ScaleMixturePrior": (
        lambda a: bt.regularizers.ScaleMixturePrior(share=a, data_size=9),
        "share",
    ),
    "GaussianLikelihood": (bt.losses.GaussianLikelihood, "precision"),
    "WeightedLoss": (lambda a: bt.losses.WeightedLoss("mse", a), "weight"),
    "HyperGaussianNoise": (bt.HyperGaussianNoise, "stddev"),
    "HyperDropout": (bt.HyperDropout, "rate"),
}

ROWS = [
    *(
        Row(
            f"{name}, of a hyperparameter that may become negative ({what})",
            factor_in(make, scale),
            ValueError,
            (f"`{argument}`", "'strength'", "Received"),
        )
        for name, (make, argument) in PENALTIES.items()
        for what, scale in {"a range from -1": NEGATIVE, "unbounded": RAW}.items()
    ),
    *(
        Row(
            f"{name}, of a whole number that may be 0",
            factor_in(PENALTIES[name][0], WHOLE),
            ValueError,
            (f"`{PENALTIES[name][1]}`", "'strength'", "0"),
        )
        for name in ("NormalPrior", "ScaleMixturePrior", "GaussianLikelihood")
    ),
    Row(
        "a negative number as a penalty",
        lambda: bt.regularizers.L1L2(l1=-1.0),
        ValueError,
        ("`l1`", "at least 0", "-1.0"),
    ),
    Row(
        "a hyperparameter that no layer uses",
        lambda: compiled(unused),
        ValueError,
        ("'strength'", "a regularizer of a weight that is trained", "leave it out"),
    ),
    Row(
        "a penalty on a frozen layer",
        lambda: compiled(frozen),
        ValueError,
        ("'strength'", "trained", "leave it out"),
    ),
    Row(
        "a penalty on a head without a loss",
        lambda: compiled(two_heads, loss=["mse", None]),
        ValueError,
        ("'strength'", "an output that has a loss"),
    ),
    Row(
        "a method that sees only direct effects, and a penalty",
        lambda: compiled(penalised, method=bt.methods.DARTS(second_order=None)),
        ValueError,
        ("'strength'", "DARTS", "constant weights"),
    ),
    Row(
        "weights of examples that fit is not given",
        forget_weights,
        ValueError,
        ("'strength'", "leave it out"),
    ),
    Row(
        "weights of examples on plain layers without a method",
        weigh_examples,
        ValueError,
        ("DeltaSTN", "differentiates training", "weights of examples"),
    ),
    Row(
        "plain layers without a method",
        lambda: compiled(plain),
        ValueError,
        ("DeltaSTN", "method=bilevel_tf.Neumann()", "HyperDense"),
    ),
    Row(
        "a tuned penalty on a plain layer beside a hyper-layer",
        lambda: compiled(lambda x, a: Hyper(1)(plain(x, a))),
        ValueError,
        ("`kernel_regularizer`", "'out'", "'strength'", "Neumann()"),
    ),
    Row(
        "a hyperparameter times a mean over examples in add_loss",
        lambda: compiled(adds_scalar),
        ValueError,
        ("'divergence'", "'strength'", "value_for", "Neumann()"),
    ),
    Row(
        "a tuned activity regularizer of one's own under a response",
        lambda: compiled(cubes),
        ValueError,
        ("`activity_regularizer`", "'out'", "Cubes", "'strength'"),
    ),
    Row(
        "a method's class",
        lambda: compiled(penalised, method=bt.DeltaSTN),
        TypeError,
        ("`method`", "DeltaSTN()", "must be called"),
    ),
    Row(
        "an objective's class",
        lambda: compiled(penalised, objective=bt.CrossValidation),
        TypeError,
        ("`objective`", "CrossValidation()", "must be called"),
    ),
    Row(
        "a method as objective",
        lambda: compiled(penalised, objective=bt.DeltaSTN()),
        TypeError,
        ("`objective`", "ValidationLoss()"),
    ),
    Row(
        "an outer loss that is a number",
        lambda: compiled(penalised, outer_loss=0.5),
        TypeError,
        ("`outer_loss`", "'mse'", "0.5"),
    ),
    Row(
        "an outer loss that does not exist",
        lambda: compiled(penalised, outer_loss="mean_sqared_error"),
        ValueError,
        ("`outer_loss`", "name of a loss", "mean_sqared_error"),
    ),
    Row(
        "too few outer losses",
        lambda: compiled(two_heads, outer_loss=["mse"]),
        ValueError,
        ("`outer_loss`", "2 outputs", "first, second", "1"),
    ),
    Row(
        "an outer loss of an output that does not exist",
        lambda: compiled(two_heads, outer_loss={"frist": "mse"}),
        ValueError,
        ("`outer_loss`", "frist", "first, second"),
    ),
    Row(
        "outer losses of no output",
        lambda: compiled(two_heads, outer_loss=[None, None]),
        ValueError,
        ("`outer_loss`", "at least one output"),
    ),
    Row(
        "an outer loss on logits above a softmax",
        lambda: compiled(
            softmax,
            loss="sparse_categorical_crossentropy",
            outer_loss=CROSSENTROPY,
        ),
        ValueError,
        ("'out'", "softmax", "from_logits"),
    ),
    Row(
        "a hyperparameter in loss_weights",
        lambda: compiled_with_weights("loss_weights"),
        TypeError,
        ("`loss_weights`", "WeightedLoss('mse', space['strength'])", "`outer_loss`"),
    ),
    Row(
        "a hyperparameter in outer_loss_weights",
        lambda: compiled_with_weights("outer_loss_weights"),
        TypeError,
        ("WeightedLoss", "'strength'"),
    ),
    Row(
        "a loss that does not exist, weighted",
        lambda: bt.losses.WeightedLoss("mean_sqared_error"),
        ValueError,
        ("mean_sqared_error",),
    ),
    Row(
        "weights of an outer loss that is not there",
        lambda: compiled(penalised, outer_loss_weights=[1.0]),
        ValueError,
        ("`outer_loss_weights`", "`outer_loss`", "[1.0]"),
    ),
    Row(
        "an outer loss under cross-validation",
        lambda: compiled(
            plain, outer_loss="mse", objective=bt.CrossValidation(3), **IMPLICIT
        ),
        ValueError,
        ("`outer_loss`", "CrossValidation", "ValidationLoss()", "'mse'"),
    ),
    Row(
        "added_losses that is no boolean",
        lambda: bt.objectives.ValidationLoss(added_losses="none"),
        ValueError,
        ("`added_losses`", "True or False", "'none'"),
    ),
    Row(
        "no loss but added ones, which are left out",
        lambda: compiled(
            adds_scalar,
            loss=None,
            objective=bt.objectives.ValidationLoss(added_losses=False),
            **IMPLICIT,
        ),
        ValueError,
        ("`added_losses`", "`loss`", "`outer_loss`"),
    ),
]
