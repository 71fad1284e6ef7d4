"""Objectives: what hyperparameters are judged by."""

from bilevel_tf.objectives.cross_validation.cross_validation import CrossValidation
from bilevel_tf.objectives.elbo import ELBO
from bilevel_tf.objectives.laplace.laplace_evidence import LaplaceEvidence
from bilevel_tf.objectives.linear_regression.linear_regression import (
    BayesianLinearRegression,
)
from bilevel_tf.objectives.objective import Objective
from bilevel_tf.objectives.validation_loss import ValidationLoss

__all__ = [
    "ELBO",
    "BayesianLinearRegression",
    "CrossValidation",
    "LaplaceEvidence",
    "Objective",
    "ValidationLoss",
]
