"""Optimizers whose own numbers are tuned."""

from bilevel_tf.optimizers.hypergradient_descent import HypergradientDescent
from bilevel_tf.optimizers.tuned import TunedOptimizer

__all__ = ["HypergradientDescent", "TunedOptimizer"]
