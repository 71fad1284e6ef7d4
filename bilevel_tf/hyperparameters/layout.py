"""Where the hyperparameters of a space stand in the vector λ."""

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import show
from bilevel_tf.scales.scale import Scale
from bilevel_tf.scales.stack import stack_scales


class Layout:
    """The places of hyperparameters in λ, and the way from λ to values and back.

    Args:
        scales: Dict from names to scales, in order.

    Attributes:
        scales: The scales.
        slices: Dict from names to the slices of λ.
        size: h, the length of λ.
    """

    def __init__(self, scales: Mapping[str, Scale]):
        self.scales = scales
        self.slices, start = {}, 0
        for name, scale in scales.items():
            self.slices[name] = slice(start, start + scale.size)
            start += scale.size
        self.size = start
        self._stacks = stack_scales(scales)
        order = self._find_places(name for s in self._stacks for name in s.names)
        self._order = None if np.array_equal(order, np.arange(start)) else order

    def _find_places(self, names: Iterable[str]) -> np.ndarray:
        return np.concatenate(
            [np.arange(s.start, s.stop) for s in (self.slices[n] for n in names)]
        )

    def constrain(self, unconstrained: tf.Tensor) -> dict[str, tf.Tensor]:
        """Values by name, `[..., *shape]` each, of vectors `[..., h]`."""
        values: dict = dict.fromkeys(self.scales)
        for stack, part in self._divide(unconstrained):
            values.update(zip(stack.names, stack.constrain(part), strict=True))
        return values

    def read(self, unconstrained: tf.Tensor) -> dict[str, float | np.ndarray]:
        """Values by name on the host, Python numbers and arrays, of a vector `[h]`."""
        values: dict = dict.fromkeys(self.scales)
        for stack, part in self._divide(unconstrained):
            values.update(zip(stack.names, stack.read(part), strict=True))
        return values

    def _divide(self, unconstrained):
        """Pairs of stacks and their parts of vectors."""
        if self._order is not None:
            unconstrained = _reorder(unconstrained, self._order)
        if len(self._stacks) == 1:
            return [(self._stacks[0], unconstrained)]
        parts = tf.split(unconstrained, [stack.size for stack in self._stacks], -1)
        return list(zip(self._stacks, parts, strict=True))

    def constrain_one(self, unconstrained: tf.Tensor, name: str) -> tf.Tensor:
        """The value of one hyperparameter, of a vector `[h]`."""
        scale = self.scales[name]
        part = unconstrained[self.slices[name]]
        return scale.constrain(tf.reshape(part, scale.unconstrained_shape))

    def unconstrain(
        self, values: Mapping[str, tf.Tensor | np.ndarray], current: tf.Tensor
    ) -> tf.Tensor:
        """The vector λ of values.

        Args:
            values: Dict from names to values in double precision, not empty.
            current: λ, `[h]`, of which the entries of all other names are taken.

        Returns:
            A tensor `[h]` in the dtype of `current`.
        """
        stacks = self._stacks
        if len(values) < len(self.scales):
            stacks = stack_scales({name: self.scales[name] for name in values})
        parts = [
            stack.unconstrain([values[n] for n in stack.names]) for stack in stacks
        ]
        places = self._find_places(name for stack in stacks for name in stack.names)
        moved = tf.cast(tf.concat(parts, 0), current.dtype)
        return tf.tensor_scatter_nd_update(current, places[:, None], moved)

    def check_finite(self, unconstrained: np.ndarray, values: Mapping) -> None:
        """Raise a `ValueError` that names a value whose λ is not finite.

        Args:
            unconstrained: λ, `[h]`.
            values: Dict from names to the values that were given.
        """
        if np.all(np.isfinite(unconstrained)):
            return
        for name, value in values.items():
            if not np.all(np.isfinite(unconstrained[self.slices[name]])):
                raise ValueError(
                    f"`{name}` must keep a distance from the ends of its range that is "
                    f"not lost in {unconstrained.dtype}, in which hyperparameters are "
                    "held: its unconstrained form is infinite. "
                    f"Received: {name}={show(value)}"
                )


def _reorder(vectors: tf.Tensor, order: np.ndarray) -> tf.Tensor:
    if vectors.shape.rank > 1:
        return tf.gather(vectors, order, axis=-1)
    # Along the first axis the gradient would not be a plain tensor.
    return tf.gather(vectors[None], order, axis=1)[0]
