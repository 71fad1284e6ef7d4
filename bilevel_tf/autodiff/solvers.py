"""Approximate solutions of H·x = b, given products with H."""

import typing

import tensorflow as tf

from bilevel_tf.autodiff.vectors import add_scaled, dot, norm, scaled

_UNROLLED = 32


class Solution(typing.NamedTuple):
    """What a solver found.

    Attributes:
        x: The solution, a list of tensors.
        iterations: How many products it took, an int32 scalar.
        residual: ‖b − H·x‖ / ‖b‖, a scalar.
        converged: Whether the residual is within the tolerance and the solver met
            nothing that it is not made for, a boolean scalar.
    """

    x: list
    iterations: tf.Tensor
    residual: tf.Tensor
    converged: tf.Tensor


class _State(typing.NamedTuple):
    iterations: tf.Tensor
    running: tf.Tensor
    definite: tf.Tensor
    squares: tf.Tensor
    x: list
    residual: list
    direction: list


def conjugate_gradient(product, b, iterations, tolerance, start=None):
    """Conjugate gradients, for a symmetric positive definite H.

    Stops when the residual is within the tolerance, and where vᵀHv ≤ 0 shows that H
    is not positive definite: it then returns what it has, not converged.

    Args:
        product: v ↦ H·v on lists of tensors.
        b: List of tensors. Its scale does not matter: a tiny one is solved as well.
        iterations: Most iterations. Up to 32 are unrolled in the graph, which is
            faster; more become a loop.
        tolerance: Relative residual at which to stop; a number or a scalar tensor.
        start: Where to start, a list; defaults to zero, and so does one that is
            further from the solution than zero is, by its residual. Solutions that
            did not converge, each the start of the next, would otherwise grow.

    Returns:
        A `Solution`.
    """
    size = norm(b)
    unit = scaled(tf.math.divide_no_nan(tf.ones_like(size), size), b)
    x, residual = [tf.zeros_like(u) for u in unit], unit
    if start is not None:
        given = scaled(tf.math.divide_no_nan(tf.ones_like(size), size), start)
        left = add_scaled(unit, -1.0, product(given))
        # Also false for NaN.
        nearer = norm(left) < norm(unit)
        x = [tf.where(nearer, g, zero) for g, zero in zip(given, x, strict=True)]
        residual = [tf.where(nearer, r, u) for r, u in zip(left, unit, strict=True)]
    squares = dot(residual, residual)
    limit = tf.cast(tolerance, squares.dtype) ** 2

    def step(state):
        moved = product(state.direction)
        curvature = dot(state.direction, moved)
        # Also false for NaN.
        definite = curvature > 0
        running = state.running & definite
        rate = _where(running, state.squares / curvature)
        x = add_scaled(state.x, rate, state.direction)
        residual = add_scaled(state.residual, -rate, moved)
        squares = dot(residual, residual)
        ratio = _where(running, squares / state.squares)
        return _State(
            state.iterations + tf.cast(state.running, tf.int32),
            running & (squares > limit),
            state.definite & (definite | ~state.running),
            squares,
            x,
            residual,
            add_scaled(residual, ratio, state.direction),
        )

    state = _State(
        tf.constant(0),
        squares > limit,
        tf.constant(True),
        squares,
        x,
        residual,
        residual,
    )
    state = _repeat(step, state, iterations)
    left = tf.sqrt(state.squares)
    # With b = 0 the answer is zero, whatever H is.
    converged = state.definite & (left <= tf.cast(tolerance, left.dtype))
    return Solution(scaled(size, state.x), state.iterations, left, converged)


def neumann_series(product, b, terms, rate):
    """α Σ_{j ≤ i} (I − αH)ʲ b, which tends to H⁻¹b where ‖I − αH‖ < 1.

    Args:
        product: v ↦ H·v on lists of tensors.
        b: List of tensors.
        terms: i, the number of products; with 0 the sum is αb.
        rate: α, a scalar.

    Returns:
        A `Solution`. It has converged if the last term is smaller than the first and
        finite; the residual is that term's size, relative to b: (I − αH)ⁱ⁺¹b is what
        the partial sum leaves of b.
    """

    def step(state):
        done, term, total = state
        term = add_scaled(term, -rate, product(term))
        return done + 1, term, add_scaled(total, 1.0, term)

    state = tf.constant(0), list(b), list(b)
    done, term, total = _repeat(step, state, terms, keep_going=lambda state: True)
    size = norm(b)
    left = tf.math.divide_no_nan(norm(term), size)
    shrinks = left < 1 if terms else tf.constant(True)
    converged = (shrinks | tf.equal(size, 0)) & tf.math.is_finite(left)
    return Solution(scaled(rate, total), done, left, converged)


def largest_eigenvalue(product, like, iterations):
    """Estimate of the largest |eigenvalue| of H, by power iteration.

    Args:
        product: v ↦ H·v on lists of tensors.
        like: List of tensors that gives shapes; the start is a fixed random vector.
        iterations: Number of products. The estimate is from below.
    """
    vector = [
        tf.random.stateless_normal(
            tf.shape(x), seed=(i, 17), dtype=x.dtype, alg="philox"
        )
        for i, x in enumerate(like)
    ]

    def step(state):
        vector, size = state
        vector = scaled(tf.math.divide_no_nan(tf.ones_like(size), size), vector)
        vector = product(vector)
        return vector, norm(vector)

    state = vector, norm(vector)
    return _repeat(step, state, iterations, keep_going=lambda state: True)[1]


def _repeat(step, state, times, keep_going=lambda state: state.running):
    """`step` applied up to so many times: unrolled where they are few."""
    if times <= _UNROLLED:
        for _ in range(times):
            state = step(state)
        return state
    body = lambda state: (step(state),)  # noqa: E731
    return tf.while_loop(keep_going, body, (state,), maximum_iterations=times)[0]


def _where(condition, value):
    return tf.where(condition, value, tf.zeros_like(value))
