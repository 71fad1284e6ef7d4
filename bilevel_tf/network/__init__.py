"""What methods and objectives see of a model."""

from bilevel_tf.network.network import Network
from bilevel_tf.network.problem import Problem

__all__ = ["Network", "Problem"]
