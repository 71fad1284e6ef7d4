"""Forward derivatives of a pass in which a layer may set tangents itself."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from bilevel_tf import _keras


class Tangents:
    """A forward accumulator that a layer can take over from.

    TensorFlow computes the forward derivative of a product as a sum of two terms, one
    per factor. It computes both even if one factor is constant, and for a layer that
    is a whole product with zeros. A layer that can do better runs its operations
    inside `paused`, and sets the tangent of its outputs with `set_tangent`.

    Use it as a context manager; tangents are followed inside.

    Args:
        primal: Tensor along which to differentiate.
        tangent: Its tangent, a tensor of the same shape.

    Example:

    >>> from bilevel_tf.autodiff.tangents import Tangents
    >>> x = tf.constant(3.0)
    >>> with Tangents(x, tf.constant(1.0)) as tangents:
    ...     square = x * x
    >>> float(tangents.of(square))
    6.0
    """

    def __init__(self, primal: tf.Tensor, tangent: tf.Tensor):
        self._accumulator = tf.autodiff.ForwardAccumulator(primal, tangent)

    def __enter__(self) -> "Tangents":
        self._accumulator.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        return self._accumulator.__exit__(*exception)

    def of(self, tensor: tf.Tensor) -> tf.Tensor | None:
        """Return the tangent of a tensor, or `None` if it has none."""
        if not isinstance(tensor, tf.Tensor):
            return None
        return self._accumulator.jvp(tensor)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Run operations whose outputs get no tangent."""
        self._accumulator.__exit__(None, None, None)
        try:
            yield
        finally:
            self._accumulator.__enter__()

    def set_tangent(self, tensor: tf.Tensor, tangent: tf.Tensor) -> None:
        """Set the tangent of a tensor that has none."""
        _keras.watch_with_tangent(self._accumulator, tensor, tangent)


def apply_linear(
    function: Callable[[tf.Tensor], tf.Tensor],
    inputs: tf.Tensor,
    tangents: Tangents | None,
) -> tf.Tensor:
    """Return `function(inputs)`, and set its tangent to `function(tangent of inputs)`.

    Args:
        function: Function of one tensor. It must be linear, and nothing else in it may
            have a tangent.
        inputs: The tensor.
        tangents: The `Tangents` in force, or `None` if there are none.
    """
    if tangents is None or (tangent := tangents.of(inputs)) is None:
        return function(inputs)
    with tangents.paused():
        outputs = function(inputs)
        moved = function(tangent)
    tangents.set_tangent(outputs, moved)
    return outputs
