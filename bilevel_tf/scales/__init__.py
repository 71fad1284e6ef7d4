"""Scales: the ranges in which hyperparameters live."""

from bilevel_tf.scales.hyperprior import GaussianHyperprior
from bilevel_tf.scales.integer import Integer
from bilevel_tf.scales.log_uniform import LogUniform
from bilevel_tf.scales.positive import Positive
from bilevel_tf.scales.scale import Scale
from bilevel_tf.scales.unconstrained import Unconstrained
from bilevel_tf.scales.uniform import Uniform

__all__ = [
    "GaussianHyperprior",
    "Integer",
    "LogUniform",
    "Positive",
    "Scale",
    "Unconstrained",
    "Uniform",
]
