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


def trace_graph(
    function: Callable, specs: list[tf.TensorSpec]
) -> tuple[tf.Graph, list[tf.Tensor]]:
    """Trace a function into a graph that is only looked at.

    A `tf.function` would register what it traced with TensorFlow's runtime, which keeps
    parts of it after the last reference is gone.

    Args:
        function: Function of tensors. What it returns is left to it to keep.
        specs: A spec for each of its arguments.

    Returns:
        The graph, and the arguments that the function was called with. Tensors and
        variables from outside of the graph are captured.
    """
    graph = tf.__internal__.FuncGraph("looked_at")
    with graph.as_default():
        arguments = [tf.compat.v1.placeholder(s.dtype, s.shape) for s in specs]
        function(*arguments)
    return graph, arguments
