"""The hypergradient of every method that differentiates training, by its formula.

Each function takes a `Point`, the training batches of the outer step, the batch that it
is judged on and the `History` of the run. Derivatives are dense.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tests.cross.point import Point, densify, flat, to_vector

# Exact in single precision, in which Keras keeps them.
RATE, MOMENTUM = 0.0625, 0.875


@dataclasses.dataclass
class History:
    """What came before the outer step.

    Attributes:
        start: The weights at `compile`.
        steps: λ and the batch of every inner step.
        velocity: SGD's velocities now.
    """

    start: list
    steps: list
    velocity: list


def take_step(point, weights, velocity, h, batch):
    """One step of SGD with momentum."""
    slope = point.inner_gradient(weights, h, batch)
    velocity = [MOMENTUM * v - RATE * g for v, g in zip(velocity, slope, strict=True)]
    return [w + v for w, v in zip(weights, velocity, strict=True)], velocity


# The implicit function theorem


def through(solve):
    """−∂²L/∂λ∂w · x, where `solve` finds x from ∂Q/∂w."""

    def reference(point, training, validation, history):
        _, cross = point.hessian(training[0])
        b = point.outer_gradient(validation)
        return -cross.T @ solve(point, training[0], b)

    return reference


def hessian(point, batch):
    return point.hessian(batch)[0]


def exact(damping):
    def solve(point, batch, b):
        matrix = hessian(point, batch)
        return np.linalg.solve(matrix + damping * np.eye(len(b)), b)

    return through(solve)


def conjugate_gradients(iterations, damping, matrix=hessian):
    """The textbook's iteration, Hestenes & Stiefel 1952."""

    def solve(point, batch, b):
        h = matrix(point, batch) + damping * np.eye(len(b))
        x, residual, direction = np.zeros_like(b), b, b
        for _ in range(iterations):
            moved = h @ direction
            rate = residual @ residual / (direction @ moved)
            x = x + rate * direction
            after = residual - rate * moved
            direction = after + (after @ after) / (residual @ residual) * direction
            residual = after
        return x

    return through(solve)


def neumann(terms, rate):
    def solve(point, batch, b):
        matrix = np.eye(len(b)) - rate * hessian(point, batch)
        return rate * sum(
            np.linalg.matrix_power(matrix, j) @ b for j in range(terms + 1)
        )

    return through(solve)


t1t2 = through(lambda point, batch, b: b)


# One step ahead


def darts(rate):
    def reference(point, training, validation, history):
        _, cross = point.hessian(training[0])
        slope = point.inner_gradient(point.weights, point.h, training[0])
        moved = [w - rate * g for w, g in zip(point.weights, slope, strict=True)]
        return -rate * cross.T @ point.outer_gradient(validation, moved)

    return reference


# Trajectories


def unrolled(point, weights, velocity, batches, validation):
    """A plain tape over the steps."""
    with tf.GradientTape() as tape:
        tape.watch(point.h)
        for batch in batches:
            weights, velocity = take_step(point, weights, velocity, point.h, batch)
        value = point.outer(weights, validation)
    return np.array(tape.gradient(value, point.h))


def from_here(point, training, validation, history):
    return unrolled(point, point.weights, history.velocity, training, validation)


def at_rest(point, training, validation, history):
    rest = [tf.zeros_like(w) for w in point.weights]
    return unrolled(point, point.weights, rest, training, validation)


def from_the_start(point, training, validation, history):
    rest = [tf.zeros_like(w) for w in point.weights]
    return unrolled(point, history.start, rest, training, validation)


def in_real_time(point, training, validation, history):
    """The training itself, every step at its own λ, all of which move together."""
    weights, velocity = history.start, [tf.zeros_like(w) for w in history.start]
    with tf.GradientTape() as tape:
        tape.watch(point.h)
        for h, batch in history.steps:
            moving = point.h + (h - tf.stop_gradient(point.h))
            weights, velocity = take_step(point, weights, velocity, moving, batch)
        value = point.outer(weights, validation)
    return np.array(tape.gradient(value, point.h))


def along_the_line(point, training, validation, history):
    """Alg. 2 of Fu et al., with the line in place of the path."""
    steps, start = len(training), point.weights
    weights, velocity = start, [tf.zeros_like(w) for w in start]
    for batch in training:
        weights, velocity = take_step(point, weights, velocity, point.h, batch)
    of_weights = point.outer_gradient(validation, weights)
    of_velocity, total = np.zeros_like(of_weights), np.zeros(2)
    for t in reversed(range(steps)):
        line = [
            (1 - t / steps) * a + t / steps * b
            for a, b in zip(start, weights, strict=True)
        ]
        of_velocity = of_velocity + of_weights
        with tf.GradientTape() as tape:
            tape.watch([*line, point.h])
            slope = flat(point.inner_gradient(line, point.h, training[t]))
            product = tf.reduce_sum(slope * of_velocity)
        *curved, cross = tape.gradient(product, [*line, point.h])
        total -= RATE * np.array(cross)
        of_weights = of_weights - RATE * to_vector(densify(curved, line))
        of_velocity = MOMENTUM * of_velocity
    return total


REFERENCES = {
    "ExactImplicit": exact(0.3),
    "ConjugateGradient": conjugate_gradients(3, 4.0),
    "HOAG": exact(4.0),
    "Neumann": neumann(3, 0.1),
    "T1T2": t1t2,
    "GaussNewton": conjugate_gradients(3, 4.0, Point.gauss_newton),
    "EmpiricalFisher": conjugate_gradients(3, 4.0, Point.fisher),
    "DARTS": darts(0.1),
    "Greedy": from_here,
    "Unrolled": from_here,
    "Unrolled, restart": from_the_start,
    "ForwardMode": from_here,
    "ForwardMode, real time": in_real_time,
    "RMAD": at_rest,
    "DrMAD": along_the_line,
}
