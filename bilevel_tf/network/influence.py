"""Which hyperparameters and weights the numbers of a network are computed from.

A graph of the network is traced without data, and followed backwards from a result.
Unlike a derivative this also finds what a step such as rounding lies between, and it
never misses an influence. It may report one that is always zero.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence

import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.space import HyperparameterSpace


class Influence:
    """A traced function, and what each of its results is computed from.

    Args:
        function: Function of λ, the unconstrained vector `[h]`, of the dict of its
            values by name, and of further tensors. It returns a dict from keys to
            tensors, or to lists of tensors and `None`. It is traced into a graph and
            never run.
        space: The space whose λ the first argument is.
        specs: A `tf.TensorSpec` of every further argument.

    Example:

    >>> from bilevel_tf.network.influence import Influence
    >>> hp = bt.HyperparameterSpace(a=bt.Positive(1.0), b=bt.Positive(1.0))
    >>> def function(h, values, x):
    ...     return {"round": tf.round(values["b"]), "input": x + 1.0}
    >>> found = Influence(function, hp, [tf.TensorSpec([2])])
    >>> found.names("round"), found.names("input"), found.arguments("input")
    ({'b'}, set(), {0})
    """

    def __init__(
        self,
        function: Callable,
        space: HyperparameterSpace,
        specs: Sequence[tf.TensorSpec],
    ):
        spec = tf.TensorSpec(space.unconstrained.shape, space.unconstrained.dtype)
        results: dict = {}
        self._values: dict = {}

        def run(unconstrained, *arguments):
            # Values are computed together, so that the way to λ does not tell them
            # apart: each is marked.
            constrained = space.constrain(unconstrained)
            values = {name: tf.identity(v) for name, v in constrained.items()}
            self._values.update((v.op, name) for name, v in values.items())
            # The results themselves: those that a graph returns are copies.
            results.update(function(unconstrained, values, *arguments))

        self._graph, inputs = _keras.trace_graph(run, [spec, *specs])
        self._unconstrained = inputs[0].op
        self._arguments = {tensor.op: i for i, tensor in enumerate(inputs[1:])}
        self._results = {key: _flatten(value) for key, value in results.items()}
        self._entries = _list_entries(space)
        self._found: dict = {}

    def names(self, key: Hashable) -> set[str]:
        """Return the names of the hyperparameters that a result is computed from."""
        return self._follow(key)[0]

    def arguments(self, key: Hashable) -> set[int]:
        """Return the numbers, from 0, of the further arguments behind a result."""
        return self._follow(key)[1]

    def _follow(self, key):
        if key not in self._found:
            self._found[key] = self._walk(self._results[key])
        return self._found[key]

    def _walk(self, tensors):
        names: set[str] = set()
        arguments: set[int] = set()
        pending = [tensor.op for tensor in tensors]
        names.update(self._values[op] for op in pending if op in self._values)
        pending = [op for op in pending if op not in self._values]
        seen = set(pending)
        while pending:
            operation = pending.pop()
            if operation in self._arguments:
                arguments.add(self._arguments[operation])
            for tensor in operation.inputs:
                source = tensor.op
                if source in self._values:
                    names.add(self._values[source])
                elif source is self._unconstrained:
                    names |= self._find_read(operation)
                elif source not in seen:
                    seen.add(source)
                    pending.append(source)
        return names, arguments

    def _find_read(self, operation) -> set[str]:
        """Find the hyperparameters whose entries of λ an operation reads."""
        if operation.type != "StridedSlice":
            return set(self._entries)
        begin, end = map(tf.get_static_value, operation.inputs[1:3])
        if begin is None or end is None or operation.get_attr("end_mask"):
            return set(self._entries)
        low, high = int(begin[-1]), int(end[-1])
        if low < 0 or high <= low:
            return set(self._entries)
        entries = self._entries.items()
        return {n for n, (start, stop) in entries if start < high and low < stop}


def _list_entries(space: HyperparameterSpace) -> dict[str, tuple[int, int]]:
    """Return the first and last but one entry of λ by name."""
    entries, start = {}, 0
    for name, scale in space.scales.items():
        entries[name] = start, start + scale.size
        start += scale.size
    return entries


def _flatten(value: tf.Tensor | Iterable) -> list[tf.Tensor]:
    listed = value if isinstance(value, (list, tuple)) else [value]
    return [
        part for tensor in listed if tensor is not None for part in _dense_parts(tensor)
    ]


def _dense_parts(tensor) -> list[tf.Tensor]:
    if isinstance(tensor, tf.IndexedSlices):
        return [tensor.values, tensor.indices]
    return [tensor]
