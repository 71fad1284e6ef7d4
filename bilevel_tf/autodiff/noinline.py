"""Functions that TensorFlow keeps apart from the graph that calls them."""

from collections.abc import Callable

import tensorflow as tf

from bilevel_tf import _keras


def as_separate_graph(function: Callable) -> tf.types.experimental.PolymorphicFunction:
    """Return `function` as a graph of its own, for use in the body of a loop.

    This avoids a fault of TensorFlow. If TensorFlow expects a graph to take 200 MB or
    more, it sums three or more tensors in a temporary variable. If the first of these
    tensors is a loop variable, it makes that temporary once more than the loop has
    passes, and the next call of the graph fails with an `AlreadyExistsError`. In the
    backward pass of a loop a cotangent is such a variable and such a term, because
    x_{t+1} is x_t plus something. TensorFlow does not look for sums across calls that
    it must not inline.
    """
    return _keras.forbid_inlining(function)
