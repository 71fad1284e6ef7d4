"""Multiplication of integers by a fraction below 1, which can be undone exactly."""

import fractions
import typing

import tensorflow as tf

# Intermediate products of the buffer stay below this bound; int64 ends at 2⁶³.
_LARGEST_PRODUCT = 2**62


class ExactDecay(typing.NamedTuple):
    """x ↦ x · n/d on int64, rounded, with the remainders kept in a buffer.

    A division by d leaves a remainder of log₂ d bits, and the multiplication by n
    makes room for log₂ n bits of it. The buffer grows by the difference, log₂(d/n)
    bits, in each step. No reversible scheme can do with less. After `period` steps the
    buffer is full and must start again from zero.

    Args:
        numerator: n, at least 1.
        denominator: d, at least n.

    Example:

    >>> from bilevel_tf.autodiff.exact_decay import ExactDecay
    >>> decay = ExactDecay.from_factor(0.9)
    >>> x, buffer = decay.apply(tf.constant(1005, tf.int64), tf.constant(0, tf.int64))
    >>> int(x)
    905
    >>> [int(t) for t in decay.undo(x, buffer)]
    [1005, 0]

    Reference:
        Maclaurin, Duvenaud & Adams, "Gradient-based hyperparameter optimization
        through reversible learning", 2015, Alg. 3.
    """

    numerator: int
    denominator: int

    @classmethod
    def from_factor(cls, factor: float, max_denominator: int = 1000) -> "ExactDecay":
        """Return the decay by the fraction that equals `factor`.

        Args:
            factor: The factor, above 0 and at most 1.
            max_denominator: Largest denominator. Defaults to 1000, with which all
                factors of three decimals are fractions. The larger the denominator,
                the shorter the period.

        Raises:
            ValueError: If the factor is not in (0, 1], or no fraction with so small a
                denominator is within 1e-9 of it.
        """
        if not 0 < factor <= 1:
            raise ValueError(
                "The factor of a decay must be above 0 and at most 1. "
                f"Received: {factor!r}"
            )
        near = fractions.Fraction(factor).limit_denominator(max_denominator)
        if abs(near - fractions.Fraction(factor)) > 1e-9:
            raise ValueError(
                "The factor of a decay must be a fraction with a denominator of at "
                f"most {max_denominator}, such as {float(near):.6g}. "
                f"Received: {factor!r}"
            )
        return cls(near.numerator, near.denominator)

    @property
    def period(self) -> int | None:
        """Number of steps that the buffer has room for; `None` if it never fills."""
        n, d = self
        if n == d:
            return None
        bound, steps = 0, 0
        while bound * d + d - 1 < _LARGEST_PRODUCT:
            bound = (bound * d + d - 1) // n
            steps += 1
        return steps

    def apply(self, x: tf.Tensor, buffer: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return x · n/d, and the buffer with what the division left.

        Args:
            x: int64 tensor of any shape.
            buffer: int64 tensor of that shape, zeros at first.
        """
        n, d = self
        buffer = buffer * d + tf.math.floormod(x, d)
        x = tf.math.floordiv(x, d) * n + tf.math.floormod(buffer, n)
        return x, tf.math.floordiv(buffer, n)

    def undo(self, x: tf.Tensor, buffer: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what `apply` was given, from what it returned."""
        n, d = self
        buffer = buffer * n + tf.math.floormod(x, n)
        x = tf.math.floordiv(x, n) * d + tf.math.floormod(buffer, d)
        return x, tf.math.floordiv(buffer, d)
