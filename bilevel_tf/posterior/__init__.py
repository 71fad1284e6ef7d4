"""Predictions and pruning by a posterior over the weights."""

from bilevel_tf.posterior.predictive import PredictiveResult, predictive
from bilevel_tf.posterior.pruning import PruningResult, prune, pruning_curve

__all__ = ["PredictiveResult", "PruningResult", "predictive", "prune", "pruning_curve"]
