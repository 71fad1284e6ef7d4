"""Bilevel optimisation for Keras: tune hyperparameters by gradient, in one fit."""

from keras import backend as _backend

if _backend.backend() != "tensorflow":
    raise ImportError(
        "bilevel_tf needs Keras to run on TensorFlow, and it runs on "
        f"{_backend.backend()}. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported."
    )

from bilevel_tf import (
    hyperparameters,
    layers,
    losses,
    methods,
    network,
    objectives,
    optimizers,
    posterior,
    regularizers,
    scales,
    search,
)
from bilevel_tf.hyperparameters import HyperparameterSpace, Tunable
from bilevel_tf.hyperparameters.pass_in_force import sampling
from bilevel_tf.layers import (
    HyperConv2D,
    HyperDense,
    HyperDropout,
    HyperGaussianNoise,
    VariationalDense,
)
from bilevel_tf.methods import (
    STN,
    ConjugateGradient,
    DeltaSTN,
    Neumann,
    Unrolled,
    hypergradient,
)
from bilevel_tf.objectives import ELBO, CrossValidation
from bilevel_tf.optimizers import TunedOptimizer
from bilevel_tf.posterior import predictive
from bilevel_tf.regularizers import L1, L2, NormalPrior
from bilevel_tf.scales import Integer, LogUniform, Positive, Unconstrained, Uniform
from bilevel_tf.training.bilevel_model import BilevelModel
from bilevel_tf.training.saving.loading import load_model

__version__ = "0.2.0"

__all__ = [
    "ELBO",
    "L1",
    "L2",
    "STN",
    "BilevelModel",
    "ConjugateGradient",
    "CrossValidation",
    "DeltaSTN",
    "HyperConv2D",
    "HyperDense",
    "HyperDropout",
    "HyperGaussianNoise",
    "HyperparameterSpace",
    "Integer",
    "LogUniform",
    "Neumann",
    "NormalPrior",
    "Positive",
    "Tunable",
    "TunedOptimizer",
    "Unconstrained",
    "Uniform",
    "Unrolled",
    "VariationalDense",
    "hypergradient",
    "hyperparameters",
    "layers",
    "load_model",
    "losses",
    "methods",
    "network",
    "objectives",
    "optimizers",
    "posterior",
    "predictive",
    "regularizers",
    "sampling",
    "scales",
    "search",
]
