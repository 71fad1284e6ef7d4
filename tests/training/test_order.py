"""Variables are read before they are updated, also in the optimised graph."""

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.framework import meta_graph
from tensorflow.python.grappler import tf_optimizer

from tests.training.models import METHODS, classifier, data

UPDATES = {"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"}


def optimized(function):
    """The graph of a concrete function as TensorFlow would run it."""
    graph = function.graph
    exported = meta_graph.create_meta_graph_def(graph=graph)
    kept = meta_graph_pb2.CollectionDef()
    kept.node_list.value.extend([tensor.name for tensor in function.outputs])
    kept.node_list.value.extend([op.name for op in graph.control_outputs])
    exported.collection_def["train_op"].CopyFrom(kept)
    return tf_optimizer.OptimizeGraph(config_pb2.ConfigProto(), exported)


def producer(reference):
    return reference.removeprefix("^").split(":")[0]


def ancestors(nodes):
    """Names of all nodes that come before a node, by its name."""
    found, left = {}, list(nodes)
    while left:
        name = left[-1]
        parents = {producer(reference) for reference in nodes[name].input}
        missing = [parent for parent in parents if parent not in found]
        if missing:
            left += missing
        else:
            found[name] = parents.union(*(found[p] for p in parents))
            left.pop()
    return found


def unordered(graph):
    """Pairs of an update and a read of one variable, neither before the other."""
    nodes = {node.name: node for node in graph.node}
    before = ancestors(nodes)
    users = {}
    for name, node in nodes.items():
        if node.op in UPDATES or node.op == "ReadVariableOp":
            users.setdefault(producer(node.input[0]), []).append(name)
    return [
        (update, other)
        for names in users.values()
        for update in names
        if nodes[update].op in UPDATES
        for other in names
        if other != update
        and other not in before[update]
        and update not in before[other]
    ]


@pytest.mark.parametrize("step", ["train_step", "outer_train_step"])
@pytest.mark.parametrize("method", METHODS)
def test_updates_and_reads_are_ordered(method, step):
    model = classifier(METHODS[method]())
    batch = tuple(tf.constant(array) for array in data(8))
    batch = batch if step == "train_step" else (batch,)
    function = tf.function(lambda *batch: getattr(model, step)(batch))
    graph = optimized(function.get_concrete_function(*batch))
    assert sum(node.op in UPDATES for node in graph.node) > 5
    assert unordered(graph) == []
