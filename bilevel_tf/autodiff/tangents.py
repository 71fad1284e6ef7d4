"""Forward derivatives of a pass in which layers may state their own."""

import contextlib

import tensorflow as tf


class Tangents:
    """A forward accumulator that a layer can take over from.

    TensorFlow's forward derivative of a product has a term for either factor and
    computes both even where one of them stands still, which for a layer is a whole
    product with zeros. A layer that knows better runs its operations `unseen` and
    says with `state` what the tangent of its outputs is.

    Args:
        primal: Tensor along which to differentiate.
        tangent: Its tangent.
    """

    def __init__(self, primal, tangent):
        self._accumulator = tf.autodiff.ForwardAccumulator(primal, tangent)

    def __enter__(self):
        self._accumulator.__enter__()
        return self

    def __exit__(self, *exception):
        return self._accumulator.__exit__(*exception)

    def of(self, tensor):
        """The tangent of a tensor; `None` where it has none."""
        if not isinstance(tensor, tf.Tensor):
            return None
        return self._accumulator.jvp(tensor)

    @contextlib.contextmanager
    def unseen(self):
        """Run operations whose outputs get no tangent."""
        self._accumulator.__exit__(None, None, None)
        try:
            yield
        finally:
            self._accumulator.__enter__()

    def state(self, tensor, tangent):
        """Say what the tangent of a tensor is that has none yet."""
        self._accumulator._watch(tensor, tangent)


def linear_map(function, inputs, tangents):
    """`function(inputs)` for a function that is linear and constant otherwise.

    Args:
        function: Function of one tensor.
        inputs: That tensor.
        tangents: `Tangents` in force, or `None`.
    """
    tangent = None if tangents is None else tangents.of(inputs)
    if tangent is None:
        return function(inputs)
    with tangents.unseen():
        outputs = function(inputs)
        moved = function(tangent)
    tangents.state(outputs, moved)
    return outputs
