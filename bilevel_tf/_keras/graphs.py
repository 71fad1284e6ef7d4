"""Private parts of TensorFlow: functions in graphs, and their derivatives."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import tensorflow as tf
from tensorflow.python.distribute import distribute_lib
from tensorflow.python.eager import forwardprop
from tensorflow.python.framework.ops import gradient_registry


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


class TracedGraphs:
    """Graphs of functions, and what TensorFlow keeps for the sake of their derivatives.

    TensorFlow keeps two dicts that live as long as the process. Every call of a
    function under `tf.custom_gradient` adds an entry that holds the graph in which the
    call was traced. Every operation that a forward accumulator sees adds a function,
    unless one for the same shapes is there; and of an operation that has added 32, all
    further functions are traced with unknown shapes.
    """

    def __init__(self):
        self._noted: list[tuple[tf.Graph, dict]] = []

    def note(self) -> None:
        """Remember the graph that is being traced, if any is."""
        if not tf.executing_eagerly():
            graph = tf.compat.v1.get_default_graph()
            self._noted.append((graph, dict(forwardprop._TRACE_COUNT)))

    def forget(self) -> None:
        """Remove the entries of all graphs noted, which nobody differentiates further.

        All of them must have been traced to the end: a loop may be differentiated
        after its body.
        """
        while self._noted:
            graph, counts = self._noted.pop()
            _forget_custom_gradients(graph)
            _forget_forward_derivatives(graph)
            forwardprop._TRACE_COUNT.update(counts)


def _forget_custom_gradients(graph):
    for operation in graph.get_operations():
        if operation.type != "IdentityN":
            continue
        name = operation.node_def.attr["_gradient_op_type"].s.decode()
        if name.startswith("CustomGradient-"):
            gradient_registry._registry.pop(name, None)
    for function in graph._functions.values():
        # Another graph may call the same function, but not the same body of a loop.
        if getattr(function.graph, "is_control_flow_graph", False):
            _forget_custom_gradients(function.graph)


def _forget_forward_derivatives(graph):
    cache = forwardprop._jvp_function_cache
    for (context, kind), function in list(cache._primary.items()):
        outer = function.graph.outer_graph
        while getattr(outer, "is_control_flow_graph", False):
            outer = outer.outer_graph
        if outer is graph:
            cache.delete(kind, context)


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
    _forget_custom_gradients(graph)
    _forget_forward_derivatives(graph)
    return graph, arguments
