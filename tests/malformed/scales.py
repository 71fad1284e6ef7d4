"""Malformed ranges of hyperparameters."""

import numpy as np

import bilevel_tf as bt
from tests.malformed.row import Row

HELD = ("float32", "held", "Received")


def space():
    return bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.9, initial=0.1))


ROWS = [
    Row(
        "Uniform with its bounds exchanged",
        lambda: bt.Uniform(1.0, 0.0, initial=0.5),
        ValueError,
        ("low", "high", "1.0", "0.0"),
    ),
    Row(
        "a bound that is a string",
        lambda: bt.Uniform("0.", 1.0, initial=0.5),
        ValueError,
        ("`low` and `high`", "finite numbers", "low='0.'"),
    ),
    Row(
        "a bound that is a hyperparameter",
        lambda: bt.Uniform(0.0, space()["rate"], initial=0.05),
        ValueError,
        ("`low` and `high`", "finite numbers", "<Hyperparameter rate"),
    ),
    Row(
        "bounds that are Booleans",
        lambda: bt.Uniform(False, True, initial=0.5),
        ValueError,
        ("`low` and `high`", "finite numbers", "low=False"),
    ),
    Row(
        "a whole number too large for any float",
        lambda: bt.Integer(0, 10**400, initial=5),
        ValueError,
        ("`low` and `high`", "finite numbers"),
    ),
    Row(
        "an infinite bound",
        lambda: bt.LogUniform(1e-3, float("inf"), initial=1.0),
        ValueError,
        ("`low` and `high`", "finite", "high=inf"),
    ),
    Row(
        "a logarithmic scale from zero",
        lambda: bt.LogUniform(0.0, 1.0, initial=0.1),
        ValueError,
        ("`low`", "positive", "low=0.0"),
    ),
    Row(
        "an initial value that is a string",
        lambda: bt.Uniform(0.0, 1.0, initial="0.3"),
        ValueError,
        ("`initial`", "number", "initial='0.3'"),
    ),
    Row(
        "an initial value that is None",
        lambda: bt.Positive(None),
        ValueError,
        ("`initial`", "number", "initial=None"),
    ),
    Row(
        "an initial value that is a Boolean",
        lambda: bt.Positive(True),
        ValueError,
        ("`initial`", "number", "initial=True"),
    ),
    Row(
        "an initial value that is NaN",
        lambda: bt.Unconstrained(float("nan")),
        ValueError,
        ("`initial`", "finite", "nan"),
    ),
    Row(
        "an initial value outside",
        lambda: bt.Uniform(0.0, 1.0, initial=1.0),
        ValueError,
        ("`initial`", "strictly between", "initial=1.0"),
    ),
    Row(
        "an initial list with rows of different length",
        lambda: bt.Positive([[1.0], [1.0, 2.0]]),
        ValueError,
        ("`initial`", "nested list of numbers", "[[1.0], [1.0, 2.0]]"),
    ),
    Row(
        "one bad entry of a large initial array",
        lambda: bt.Positive(np.where(np.arange(10**5) == 70, -1.0, 1.0)),
        ValueError,
        ("`initial`", "positive", "entry [70] is -1.0"),
    ),
    Row(
        "a half of a whole number",
        lambda: bt.Integer(0, 4, initial=1.5),
        ValueError,
        ("`initial`", "whole number", "1.5"),
    ),
    Row(
        "an initial value that overflows",
        lambda: bt.Unconstrained(1e39),
        ValueError,
        ("`initial`", "1e+39", "set_dtype_policy", *HELD),
    ),
    Row(
        "an initial value that underflows",
        lambda: bt.Positive(1e-60),
        ValueError,
        ("`initial`", "1e-60", *HELD),
    ),
    Row(
        "a bound that underflows",
        lambda: bt.Uniform(0, 1e-46, initial=5e-47),
        ValueError,
        ("`high`", "1e-46", *HELD),
    ),
    Row(
        "bounds that are one number in single precision",
        lambda: bt.Uniform(1.0, 1.0 + 1e-9, initial=1.0 + 5e-10),
        ValueError,
        ("`low` and `high`", "distance", *HELD),
    ),
    Row(
        "bounds whose distance overflows",
        lambda: bt.Uniform(-3e38, 3e38, initial=0.0),
        ValueError,
        ("`low` and `high`", "distance", *HELD),
    ),
    Row(
        "whole numbers that single precision cannot tell apart",
        lambda: bt.Integer(0, 10**9, initial=10),
        ValueError,
        ("`low` and `high`", "LogUniform", *HELD),
    ),
    Row(
        "a perturbation scale of zero",
        lambda: bt.Positive(1.0, perturbation_scale=0.0),
        ValueError,
        ("`perturbation_scale`", "positive", "0.0"),
    ),
    Row(
        "a perturbation scale that is a Boolean",
        lambda: bt.Positive(1.0, perturbation_scale=True),
        ValueError,
        ("`perturbation_scale`", "positive", "True"),
    ),
    Row(
        "a word where True or False belongs",
        lambda: bt.Positive(1.0, learn_perturbation_scale="no"),
        TypeError,
        ("`learn_perturbation_scale`", "True or False", "'no'"),
    ),
    Row(
        "a number as prior",
        lambda: bt.Positive(1.0, prior=1.0),
        TypeError,
        ("`prior`", "GaussianHyperprior", "prior=1.0"),
    ),
    Row(
        "a prior whose center is outside",
        lambda: bt.Positive(1.0, prior=bt.scales.GaussianHyperprior(-1.0)),
        ValueError,
        ("`prior.center`", "positive", "-1.0"),
    ),
    Row(
        "a prior whose center is a string",
        lambda: bt.scales.GaussianHyperprior("1"),
        ValueError,
        ("`center`", "number", "'1'"),
    ),
    Row(
        "a prior of another shape",
        lambda: bt.Positive(1.0, prior=bt.scales.GaussianHyperprior([1.0, 2.0])),
        ValueError,
        ("`prior.center`", "shape ()", "[1.0, 2.0]"),
    ),
]
