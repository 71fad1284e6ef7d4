"""Private parts of TensorFlow: forward derivatives and functions in graphs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import tensorflow as tf
from tensorflow.python.distribute import distribute_lib


def forbid_inlining(function: Callable) -> tf.types.experimental.PolymorphicFunction:
    """Return `function` as a `tf.function` that stays a call in the graph.

    TensorFlow merges the graph of an ordinary `tf.function` with the graph that calls
    it, before it optimises the two together. Autograph is off.
    """
    return tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    )


def watch_with_tangent(
    accumulator: tf.autodiff.ForwardAccumulator, tensor: tf.Tensor, tangent: tf.Tensor
) -> None:
    """Give a tensor a tangent in a forward accumulator that has been entered.

    The public class takes the tangents of its primals when it is made, and no others
    afterwards.
    """
    accumulator._watch(tensor, tangent)


def leave_strategy() -> AbstractContextManager:
    """Return a context in which no `tf.distribute` strategy is in scope.

    Variables made under a strategy can be read there, and an assignment changes them on
    all of its devices.
    """
    if not tf.distribute.has_strategy():
        return nullcontext()
    return distribute_lib._get_default_replica_context()
