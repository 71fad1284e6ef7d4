"""Bilevel optimisation for Keras: tune hyperparameters by gradient, in one fit."""

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        "bilevel_tf needs Keras to run on TensorFlow, and it runs on "
        f"{_keras.backend.backend()}. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported."
    )

from bilevel_tf.autodiff.tuned_optimizer import TunedOptimizer
from bilevel_tf.hypergradients.curvature import (
    ComposedLoss,
    EmpiricalFisher,
    GaussNewton,
)
from bilevel_tf.hypergradients.delta_stn import DeltaSTN
from bilevel_tf.hypergradients.drmad import DrMAD
from bilevel_tf.hypergradients.forward import ForwardMode
from bilevel_tf.hypergradients.functional import hypergradient
from bilevel_tf.hypergradients.graves import GravesUpdate
from bilevel_tf.hypergradients.hoag import HOAG, Minimum
from bilevel_tf.hypergradients.hypergradient_descent import HypergradientDescent
from bilevel_tf.hypergradients.hypernetwork import Hypernetwork
from bilevel_tf.hypergradients.implicit import (
    T1T2,
    ConjugateGradient,
    ExactImplicit,
    Neumann,
)
from bilevel_tf.hypergradients.mackay import MacKayUpdate
from bilevel_tf.hypergradients.one_step import DARTS, Greedy
from bilevel_tf.hypergradients.problem import Hypergradient
from bilevel_tf.hypergradients.reversible import RMAD
from bilevel_tf.hypergradients.stn import STN, CenteredSTN
from bilevel_tf.hypergradients.unrolled import Unrolled
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.prior import GaussianPrior
from bilevel_tf.hyperparameters.scales import (
    Integer,
    LogUniform,
    Positive,
    Scale,
    Unconstrained,
    Uniform,
)
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.layers.conv2d import HyperConv2D
from bilevel_tf.layers.dense import HyperDense
from bilevel_tf.layers.noise import HyperDropout, HyperGaussianNoise
from bilevel_tf.layers.regularizers import L1, L1L2, L2
from bilevel_tf.layers.sampling import sampling
from bilevel_tf.layers.variational_conv2d import VariationalConv2D
from bilevel_tf.layers.variational_dense import VariationalDense
from bilevel_tf.layers.weight_priors import NormalPrior, ScaleMixturePrior
from bilevel_tf.objectives.cross_validation import CrossValidation
from bilevel_tf.objectives.elbo import ELBO
from bilevel_tf.objectives.laplace import LaplaceEvidence
from bilevel_tf.objectives.likelihoods import GaussianLikelihood
from bilevel_tf.objectives.linear_evidence import BayesianLinearRegression
from bilevel_tf.objectives.validation_loss import ValidationLoss
from bilevel_tf.training.bilevel_model import BilevelModel
from bilevel_tf.training.predictive import Predictive, predictive
from bilevel_tf.training.pruning import Pruned, prune, pruning_curve

__version__ = "0.1.0"

__all__ = [
    "DARTS",
    "ELBO",
    "HOAG",
    "L1",
    "L1L2",
    "L2",
    "RMAD",
    "STN",
    "T1T2",
    "BayesianLinearRegression",
    "BilevelModel",
    "CenteredSTN",
    "ComposedLoss",
    "ConjugateGradient",
    "CrossValidation",
    "DeltaSTN",
    "DrMAD",
    "EmpiricalFisher",
    "ExactImplicit",
    "ForwardMode",
    "GaussNewton",
    "GaussianLikelihood",
    "GaussianPrior",
    "GravesUpdate",
    "Greedy",
    "HyperConv2D",
    "HyperDense",
    "HyperDropout",
    "HyperGaussianNoise",
    "Hypergradient",
    "HypergradientDescent",
    "Hypernetwork",
    "Hyperparameter",
    "HyperparameterSpace",
    "Integer",
    "LaplaceEvidence",
    "LogUniform",
    "MacKayUpdate",
    "Minimum",
    "Neumann",
    "NormalPrior",
    "Positive",
    "Predictive",
    "Pruned",
    "Scale",
    "ScaleMixturePrior",
    "TunedOptimizer",
    "Unconstrained",
    "Uniform",
    "Unrolled",
    "ValidationLoss",
    "VariationalConv2D",
    "VariationalDense",
    "hypergradient",
    "predictive",
    "prune",
    "pruning_curve",
    "sampling",
]
