"""Hyperparameters, the space that they form, and the arguments that take them."""

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.space import HyperparameterSpace

__all__ = ["Hyperparameter", "HyperparameterSpace"]
