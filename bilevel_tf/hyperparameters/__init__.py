"""Hyperparameters, the space that they form, and the arguments that take them."""

from bilevel_tf.hyperparameters.configs import config_of, numbers_of, read_config
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.hyperparameters.tunable import Tunable
from bilevel_tf.hyperparameters.values import mean_value, value_for, value_of

__all__ = [
    "Hyperparameter",
    "HyperparameterSpace",
    "Tunable",
    "config_of",
    "mean_value",
    "numbers_of",
    "read_config",
    "references",
    "value_for",
    "value_of",
]
