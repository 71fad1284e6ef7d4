"""Private parts of TensorFlow: forward derivatives and functions in graphs."""

from collections.abc import Callable

import tensorflow as tf


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
