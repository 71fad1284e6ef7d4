"""Multiplication of integers by a fraction below 1 that can be undone exactly."""

import fractions
import typing

import tensorflow as tf

# Products of the buffer stay below this; int64 goes to 2⁶³.
_ROOM = 2**62


class ExactDecay(typing.NamedTuple):
    """x ↦ ⌊x·n/d⌋, nearly, on int64, with the remainders kept in a buffer.

    A division by d loses a remainder, of log₂ d bits; the multiplication by n makes
    room for log₂ n of them. The buffer grows by log₂(d/n) bits in each step, which is
    the least possible, and must start again from zero after `period` steps.

    Reference:
        Maclaurin, Duvenaud & Adams, "Gradient-based hyperparameter optimization
        through reversible learning", 2015, Alg. 3.
    """

    numerator: int
    denominator: int

    @classmethod
    def of(cls, factor, max_denominator=1000):
        """The fraction that is `factor`.

        Raises:
            ValueError: If the factor is not in (0, 1], or no fraction with so small a
                denominator is within 1e-9 of it.
        """
        if not 0 < factor <= 1:
            raise ValueError(
                f"The factor must be above 0 and at most 1. Received: {factor!r}"
            )
        near = fractions.Fraction(factor).limit_denominator(max_denominator)
        if abs(near - fractions.Fraction(factor)) > 1e-9:
            raise ValueError(
                f"The factor must be a fraction with a denominator of at most "
                f"{max_denominator}, such as {float(near):.6g}. Received: {factor!r}"
            )
        return cls(near.numerator, near.denominator)

    @property
    def period(self):
        """Number of steps that the buffer has room for; `None` for any number."""
        n, d = self
        if n == d:
            return None
        bound, steps = 0, 0
        while bound * d + d - 1 < _ROOM:
            bound = (bound * d + d - 1) // n
            steps += 1
        return steps

    def apply(self, x, buffer):
        """x · n/d and the buffer with what was lost."""
        n, d = self
        buffer = buffer * d + tf.math.floormod(x, d)
        x = tf.math.floordiv(x, d) * n + tf.math.floormod(buffer, n)
        return x, tf.math.floordiv(buffer, n)

    def undo(self, x, buffer):
        """The inverse of `apply`."""
        n, d = self
        buffer = buffer * n + tf.math.floormod(x, n)
        x = tf.math.floordiv(x, n) * d + tf.math.floormod(buffer, d)
        return x, tf.math.floordiv(buffer, d)
