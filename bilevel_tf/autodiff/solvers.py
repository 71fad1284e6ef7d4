"""Solvers of H·x = b."""

import typing
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bilevel_tf.autodiff.solution import Solution, Status, choose_status
from bilevel_tf.autodiff.vectors import (
    add_scaled,
    all_finite,
    dot,
    flatten,
    norm,
    scaled,
    unflatten,
)

Product = Callable[[list[tf.Tensor]], list[tf.Tensor]]

_UNROLLED = 32


class _State(typing.NamedTuple):
    """Conjugate gradients between two iterations, for b of length 1.

    Attributes:
        iterations: Products so far.
        running: Whether to go on.
        largest: The largest |vᵀHv| / vᵀv so far.
        relative: The last vᵀHv / vᵀv, relative to the largest.
        squares: ‖residual‖².
        length: ‖direction‖².
        x, residual, direction: Lists of tensors.
    """

    iterations: tf.Tensor
    running: tf.Tensor
    largest: tf.Tensor
    relative: tf.Tensor
    squares: tf.Tensor
    length: tf.Tensor
    x: list[tf.Tensor]
    residual: list[tf.Tensor]
    direction: list[tf.Tensor]


def conjugate_gradient(
    product: Product,
    b: list[tf.Tensor],
    iterations: int,
    tolerance: float | tf.Tensor,
    start: list[tf.Tensor] | None = None,
) -> Solution:
    """Conjugate gradients, for a symmetric positive definite H.

    Other than the textbook's, they stop as soon as vᵀHv shows that H is not positive
    definite, and return the solution so far. If b = 0 the solution is 0, whatever H is.

    Args:
        product: v ↦ H·v on lists of tensors.
        b: List of tensors of one dtype; some may be empty. The scale of b does not
            matter: a tiny b is solved to the same relative residual.
        iterations: Most iterations. Up to 32 are unrolled in the graph, which is
            faster; more become a loop.
        tolerance: ‖b − H·x‖ / ‖b‖ at which to stop; a number or a scalar tensor. With 0
            all iterations are used.
        start: Where to start, a list of tensors. Defaults to zero. Zero is taken also
            if `start` has the larger residual: solutions that did not converge, each
            the start of the next solve, would otherwise grow.

    Returns:
        A `Solution`. Its residual is the one that the iteration carries along, and
        its product with `start` is not counted. The status is one of

        - CONVERGED;
        - OUT_OF_ITERATIONS;
        - NOT_POSITIVE_DEFINITE, if vᵀHv < 0 for some direction v;
        - SINGULAR, if vᵀHv / vᵀv is zero up to rounding, relative to the largest;
        - NOT_FINITE, if NaN or infinity turned up.

    Reference:
        Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems",
        1952.

    Example:

    >>> from bilevel_tf.autodiff.solvers import conjugate_gradient
    >>> found = conjugate_gradient(
    ...     lambda v: [4.0 * v[0]], [tf.constant([2.0, 8.0])], 10, 1e-6)
    >>> found.x[0].numpy().tolist(), int(found.iterations), bool(found.converged)
    ([0.5, 2.0], 1, True)
    """
    size = _norm_of_any_scale(b)
    unit = _divided(b, size)
    x, residual = [tf.zeros_like(u) for u in unit], unit
    if start is not None:
        given = _divided(start, size)
        left = add_scaled(unit, -1.0, product(given))
        # Also false for NaN.
        nearer = norm(left) < norm(unit)
        x = [tf.where(nearer, g, zero) for g, zero in zip(given, x, strict=True)]
        residual = [tf.where(nearer, r, u) for r, u in zip(left, unit, strict=True)]
    squares = dot(residual, residual)
    limit = tf.cast(tolerance, squares.dtype) ** 2
    kind = np.finfo(squares.dtype.as_numpy_dtype)

    def step(state):
        moved = product(state.direction)
        curvature = dot(state.direction, moved)
        quotient = curvature / state.length
        largest = tf.maximum(state.largest, tf.abs(quotient))
        relative = tf.where(state.running, quotient / largest, state.relative)
        # Also false for NaN, which must not reach x.
        running = state.running & (relative > kind.eps)
        moved = [_keep_if(running, m) for m in moved]
        rate = _keep_if(running, state.squares / curvature)
        x = add_scaled(state.x, rate, state.direction)
        residual = add_scaled(state.residual, -rate, moved)
        squares = dot(residual, residual)
        ratio = _keep_if(running, squares / state.squares)
        return _State(
            state.iterations + tf.cast(state.running, tf.int32),
            running & (squares > limit),
            largest,
            relative,
            squares,
            # The residual is orthogonal to the last direction.
            squares + ratio**2 * state.length,
            x,
            residual,
            add_scaled(residual, ratio, state.direction),
        )

    state = _State(
        tf.constant(0),
        squares > limit,
        tf.constant(kind.tiny / kind.eps, squares.dtype),
        tf.ones_like(squares),
        squares,
        squares,
        x,
        residual,
        residual,
    )
    state = _repeat(step, state, iterations)
    finite = tf.math.is_finite(state.relative) & tf.math.is_finite(state.squares)
    status = choose_status(
        (~finite, Status.NOT_FINITE),
        (state.relative < -kind.eps, Status.NOT_POSITIVE_DEFINITE),
        (state.relative <= kind.eps, Status.SINGULAR),
        (state.squares > limit, Status.OUT_OF_ITERATIONS),
    )
    x = scaled(size, state.x)
    return Solution(x, state.iterations, tf.sqrt(state.squares), status)


def neumann_series(
    product: Product, b: list[tf.Tensor], terms: int, learning_rate: tf.Tensor
) -> Solution:
    """α Σ_{j ≤ i} (I − αH)ʲ b, which tends to H⁻¹b if ‖I − αH‖ < 1.

    Args:
        product: v ↦ H·v on lists of tensors.
        b: List of tensors of one dtype; some may be empty.
        terms: i, the number of products; with 0 the sum is αb.
        learning_rate: α, a scalar.

    Returns:
        A `Solution`. The partial sum leaves (I − αH)ⁱ⁺¹b of b; the residual is the
        size of the last term, (I − αH)ⁱb, relative to b, which bounds this if the
        series converges. The status is CONVERGED if the last term is smaller than the
        first one, DIVERGED if it is not, and NOT_FINITE if it has NaN or infinity.

    Example:

    >>> from bilevel_tf.autodiff.solvers import neumann_series
    >>> found = neumann_series(
    ...     lambda v: [4.0 * v[0]], [tf.constant([2.0, 8.0])], 1, tf.constant(0.125))
    >>> found.x[0].numpy().tolist(), float(found.residual)
    ([0.375, 1.5], 0.5)
    """

    def step(state):
        done, term, total = state
        term = add_scaled(term, -learning_rate, product(term))
        return done + 1, term, add_scaled(total, 1.0, term)

    state = tf.constant(0), list(b), list(b)
    done, term, total = _repeat(step, state, terms, keep_going=lambda state: True)
    size, last = _norm_of_any_scale(b), _norm_of_any_scale(term)
    status = choose_status(
        (~tf.math.is_finite(last), Status.NOT_FINITE),
        (tf.equal(size, 0) | (not terms), Status.CONVERGED),
        (last >= size, Status.DIVERGED),
    )
    residual = tf.math.divide_no_nan(last, size)
    return Solution(scaled(learning_rate, total), done, residual, status)


def dense_solve(matrix: tf.Tensor, b: list[tf.Tensor]) -> Solution:
    """H⁻¹b by a QR decomposition. If b = 0 the solution is 0.

    If H has a row of zeros, and b has 0 there, x is 0 there too and counts as solved.

    Args:
        matrix: H, `[n, n]`, symmetric.
        b: List of tensors with n entries in all.

    Returns:
        A `Solution`, whose iterations are the n products that give H. The status is
        CONVERGED; SINGULAR, if the rest of H is singular up to rounding, and x is then
        not to be used; or NOT_FINITE, if H or b has NaN or infinity.

    Example:

    >>> from bilevel_tf.autodiff.solvers import dense_solve
    >>> found = dense_solve(tf.constant([[0.0, 2.0], [2.0, 0.0]]), [tf.ones(2)])
    >>> np.round(found.x[0], 6).tolist()
    [0.5, 0.5]
    """
    vector = flatten(b)
    count = vector.shape.num_elements()
    empty = tf.reduce_all(tf.equal(matrix, 0), 1) & tf.equal(vector, 0)
    # A diagonal entry that is neither the smallest nor the largest pivot.
    largest = tf.reduce_max(tf.abs(matrix))
    matrix += tf.linalg.diag(tf.where(empty, largest, 0))
    # XLA has no LU decomposition.
    q, r = tf.linalg.qr(matrix)
    rotated = tf.linalg.matvec(q, vector, transpose_a=True)
    solved = tf.linalg.triangular_solve(r, rotated[:, None], lower=False)[:, 0]
    size = _norm_of_any_scale(b)
    nothing = tf.equal(size, 0)
    solved = _keep_if(~nothing & ~empty, solved)
    left = _norm_of_any_scale([tf.linalg.matvec(matrix, solved) - vector])
    pivots = tf.abs(tf.linalg.diag_part(r))
    rounding = count * np.finfo(matrix.dtype.as_numpy_dtype).eps
    regular = tf.reduce_min(pivots) > rounding * tf.reduce_max(pivots)
    status = choose_status(
        (~all_finite([matrix, vector]), Status.NOT_FINITE),
        (~regular & ~nothing, Status.SINGULAR),
        (~tf.math.is_finite(left), Status.NOT_FINITE),
    )
    residual = tf.math.divide_no_nan(left, size)
    return Solution(unflatten(solved, b), tf.constant(count), residual, status)


def largest_eigenvalue(
    product: Product, like: list[tf.Tensor], iterations: int
) -> tf.Tensor:
    """Estimate of the largest |eigenvalue| of H, by power iteration; a scalar.

    Args:
        product: v ↦ H·v on lists of tensors.
        like: List of tensors that gives shapes and dtypes; the start is a fixed random
            vector.
        iterations: Number of products. The estimate is from below.

    Example:

    >>> from bilevel_tf.autodiff.solvers import largest_eigenvalue
    >>> float(largest_eigenvalue(lambda v: [4.0 * v[0]], [tf.zeros(())], 3))
    4.0
    """
    vector = fixed_noise(like)

    def step(state):
        vector, size = state
        vector = scaled(tf.math.divide_no_nan(tf.ones_like(size), size), vector)
        vector = product(vector)
        return vector, norm(vector)

    state = vector, norm(vector)
    return _repeat(step, state, iterations, keep_going=lambda state: True)[1]


def fixed_noise(like: list[tf.Tensor]) -> list[tf.Tensor]:
    """Normal numbers, always the same, with the shapes and dtypes of `like`."""
    return [
        tf.random.stateless_normal(
            tf.shape(x), seed=(i, 17), dtype=x.dtype, alg="philox"
        )
        for i, x in enumerate(like)
    ]


def _repeat(step, state, times, keep_going=lambda state: state.running):
    """Apply `step` up to so many times: unrolled if they are few."""
    if times <= _UNROLLED:
        for _ in range(times):
            state = step(state)
        return state
    body = lambda state: (step(state),)  # noqa: E731
    return tf.while_loop(keep_going, body, (state,), maximum_iterations=times)[0]


def _norm_of_any_scale(a):
    """‖a‖ of numbers whose squares may overflow or be rounded to zero."""
    # The maximum of an empty tensor is −∞.
    largest = tf.reduce_max([tf.reduce_max(tf.abs(x)) for x in a])
    plain = (largest > 0) & tf.math.is_finite(largest)
    scale = tf.where(plain, largest, tf.ones_like(largest))
    return scale * norm([x / scale for x in a])


def _divided(a, size):
    """a / size, or zeros if the size is 0."""
    return [tf.math.divide_no_nan(x, size) for x in a]


def _keep_if(condition, value):
    """The value, or zeros."""
    return tf.where(condition, value, tf.zeros_like(value))
