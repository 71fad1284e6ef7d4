"""Many scales mapped by one operation."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from bilevel_tf.scales.scale import Scale


class Stack:
    """Scales that are mapped together.

    They are of one class and differ only in numbers that may stand in arrays
    (`Scale.stacked`), or they are equal. A space of thousands of hyperparameters is
    read and written by a few operations then.

    Args:
        scales: Dict from names to the scales.

    Attributes:
        names: The names.
        scales: The scales.
        size: Number of entries of their unconstrained forms.
    """

    def __init__(self, scales: Mapping[str, Scale]):
        self.names = list(scales)
        self.scales = list(scales.values())
        self.size = sum(scale.size for scale in self.scales)
        first = self.scales[0]
        self._by_entry = "stacked" in vars(type(first)) and first.stacked is not None
        self._merged = self._merge() if self._by_entry else first
        self._scalar = all(scale.shape == () for scale in self.scales)
        self._sizes = [int(np.prod(scale.shape)) for scale in self.scales]

    def _merge(self):
        """One scale for all entries, with arrays where the scales differ."""
        merged = copy.copy(self.scales[0])
        for name in merged.stacked or ():
            values = [getattr(scale, name) for scale in self.scales]
            if any(value != values[0] for value in values):
                sizes = [scale.size for scale in self.scales]
                setattr(merged, name, np.repeat(np.asarray(values, "float64"), sizes))
        return merged

    def constrain(self, unconstrained: tf.Tensor) -> list[tf.Tensor]:
        """The values of all.

        Args:
            unconstrained: Their unconstrained forms, one after the other,
                `[..., size]`.

        Returns:
            A tensor `[..., *shape]` for each scale.
        """
        if self._by_entry:
            merged = self._merged.constrain(unconstrained)
            if self._scalar:
                return tf.unstack(merged, len(self.scales), axis=-1)
            parts = tf.split(merged, self._sizes, -1)
            shapes = [scale.shape for scale in self.scales]
            return [_reshape_last(p, s) for p, s in zip(parts, shapes, strict=True)]
        inner = self._merged.unconstrained_shape
        count, axis = len(self.scales), unconstrained.shape.rank - 1
        together = _reshape_last(unconstrained, (count, *inner))
        return tf.unstack(self._merged.constrain(together), count, axis=axis)

    def read(self, unconstrained: tf.Tensor) -> list:
        """The values of all on the host, for `unconstrained` of shape `[size]`.

        Returns:
            A Python number for each scalar, an array for each other.
        """
        if not self._by_entry:
            values = [value.numpy() for value in self.constrain(unconstrained)]
            return [v if v.ndim else v.item() for v in values]
        merged = np.asarray(self._merged.constrain(unconstrained))
        if self._scalar:
            return merged.tolist()
        parts = np.split(merged, np.cumsum(self._sizes)[:-1])
        return [p.reshape(s.shape) for p, s in zip(parts, self.scales, strict=True)]

    def unconstrain(self, values: Sequence[tf.Tensor | np.ndarray]) -> tf.Tensor:
        """The unconstrained forms of all, one after the other; inverse of `constrain`.

        Args:
            values: A value of each scale, in double precision.

        Returns:
            A tensor `[size]`.
        """
        if not self._by_entry:
            parts = self._merged.unconstrain(_stack(values))
            return tf.reshape(parts, [self.size])
        if self._scalar:
            return self._merged.unconstrain(_stack(values))
        flat = [tf.reshape(value, [-1]) for value in values]
        return self._merged.unconstrain(tf.concat(flat, 0))


def stack_scales(scales: Mapping[str, Scale]) -> list[Stack]:
    """Put scales into stacks, in the order in which each stack's first one comes."""
    groups: dict = {}
    for name, scale in scales.items():
        groups.setdefault(_kind_of(scale), {})[name] = scale
    return [Stack(group) for group in groups.values()]


def _kind_of(scale):
    """What scales have in common that are mapped together."""
    kind = type(scale)
    if vars(kind).get("stacked") is not None:
        return kind, scale.shape == ()
    # A map of a user's own may depend on any attribute.
    attributes = [(n, _make_hashable(v)) for n, v in sorted(vars(scale).items())]
    try:
        hash(key := (kind, tuple(attributes)))
    except TypeError:
        return id(scale)
    return key


def _make_hashable(value):
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    return value


def _stack(values):
    if any(tf.is_tensor(value) for value in values):
        return tf.stack(values)
    return tf.convert_to_tensor(np.stack(values))


def _reshape_last(tensor, shape):
    """Give the last axis of a tensor, `[..., n]`, another shape."""
    batch = tensor.shape[:-1]
    if batch.is_fully_defined():
        return tf.reshape(tensor, batch + shape)
    reshaped = tf.reshape(tensor, tf.concat([tf.shape(tensor)[:-1], list(shape)], 0))
    reshaped.set_shape(batch + shape)
    return reshaped
