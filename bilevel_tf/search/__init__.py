"""Searches over hyperparameters, to compare one fit with."""

from bilevel_tf.search.bayesian_search import BayesianSearch
from bilevel_tf.search.grid_search import GridSearch
from bilevel_tf.search.hyperband import Hyperband
from bilevel_tf.search.random_search import RandomSearch
from bilevel_tf.search.result import SearchResult
from bilevel_tf.search.trial import TrialResult

__all__ = [
    "BayesianSearch",
    "GridSearch",
    "Hyperband",
    "RandomSearch",
    "SearchResult",
    "TrialResult",
]
