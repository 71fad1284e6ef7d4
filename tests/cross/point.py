"""Losses of a condition by hand at one point, with dense derivatives."""

import numpy as np
import tensorflow as tf

from tests.cross.condition import Batch, Condition


class Point:
    """L and Q of a model, written by hand, at its present weights and λ.

    Args:
        condition: The `Condition`.
        model: The model, from which numbers are read.

    Attributes:
        weights: w, a list of float64 tensors.
        constants: Frozen weights and moving statistics, likewise.
        h: λ on the unconstrained scale, `[2]`.
    """

    def __init__(self, condition: Condition, model):
        self.condition = condition
        self.weights = [to_double(v) for v in model.network.weights]
        fixed = [v for v in model.non_trainable_variables if is_constant(v)]
        self.constants = [to_double(v) for v in fixed]
        self.h = to_double(model.hyperparameters.unconstrained)

    # By hand

    def tiled(self, weights: list, batch: Batch) -> list:
        """The same weights for every example."""
        count = batch[0].shape[0]
        return [tf.tile(w[None], [count, *[1] * w.ndim]) for w in weights]

    def outputs(self, tiled: list, batch: Batch, training: bool) -> list:
        """The outputs at every example's own weights."""
        x = batch[0] if batch[0].dtype.is_integer else tf.cast(batch[0], "float64")
        return self.condition.outputs(tiled, x, self.constants, training)

    def penalties(self, tiled: list, h: tf.Tensor) -> tf.Tensor:
        """The penalty at every example's own weights and λ `[n, 2]`."""
        values = tf.math.softplus(h)
        return self.condition.penalty(tiled, values[:, 0], values[:, 1])

    def losses(self, weights: list, h: tf.Tensor, batch: Batch) -> tf.Tensor:
        """The training loss of every example, `[n]`."""
        tiled = self.tiled(weights, batch)
        errors = self.condition.losses(self.outputs(tiled, batch, True), batch)
        return errors + self.penalties(tiled, h[None])

    def inner(self, weights: list, h: tf.Tensor, batch: Batch) -> tf.Tensor:
        """L, a scalar."""
        return tf.reduce_mean(self.losses(weights, h, batch))

    def outer(self, weights: list, batch: Batch) -> tf.Tensor:
        """Q, a scalar: without penalties, in inference mode."""
        outputs = self.outputs(self.tiled(weights, batch), batch, False)
        return tf.reduce_mean(self.condition.losses(outputs, batch))

    # Dense derivatives

    def inner_gradient(self, weights: list, h: tf.Tensor, batch: Batch) -> list:
        """∂L/∂w, which can be differentiated again."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = self.inner(weights, h, batch)
        return densify(tape.gradient(value, weights), weights)

    def outer_gradient(self, batch: Batch, weights: list | None = None) -> np.ndarray:
        """∂Q/∂w as one vector."""
        weights = self.weights if weights is None else weights
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = self.outer(weights, batch)
        return to_vector(densify(tape.gradient(value, weights), weights))

    def hessian(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """∂²L/∂w² and ∂²L/∂w∂λ as matrices."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([*self.weights, self.h])
            slope = flat(self.inner_gradient(self.weights, self.h, batch))
        return rows(tape, slope, self.weights), rows(tape, slope, [self.h])

    def gauss_newton(self, batch: Batch) -> np.ndarray:
        """Jᵀ ∂²loss/∂outputs² J + ∂²penalty/∂w²."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(self.weights)
            tiled = self.tiled(self.weights, batch)
            outputs = self.outputs(tiled, batch, True)
            vector = flat(outputs)
            with tf.GradientTape() as inside:
                inside.watch(self.weights)
                tiled = self.tiled(self.weights, batch)
                penalty = tf.reduce_mean(self.penalties(tiled, self.h[None]))
            slope = flat(densify(inside.gradient(penalty, self.weights), self.weights))
        jacobian = rows(tape, vector, self.weights)
        curvature = self._curve(outputs, batch)
        return jacobian.T @ curvature @ jacobian + rows(tape, slope, self.weights)

    def _curve(self, outputs, batch):
        outputs = [tf.identity(o) for o in outputs]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(outputs)
            with tf.GradientTape() as inside:
                inside.watch(outputs)
                value = tf.reduce_mean(self.condition.losses(outputs, batch))
            slope = flat(densify(inside.gradient(value, outputs), outputs))
        return rows(tape, slope, outputs)

    def fisher(self, batch: Batch) -> np.ndarray:
        """The mean of g·gᵀ over examples."""
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(self.weights)
            losses = self.losses(self.weights, self.h, batch)
        gradients = rows(tape, losses, self.weights)
        return gradients.T @ gradients / len(gradients)


def is_constant(variable) -> bool:
    """Whether outputs depend on a variable that is not trained."""
    return "moving_" in variable.path or "frozen" in variable.path


def to_double(variable) -> tf.Tensor:
    """The value in double precision."""
    return tf.cast(tf.convert_to_tensor(variable), tf.float64)


def densify(gradients: list, like: list) -> list:
    """Gradients as dense tensors, zeros for `None`."""
    return [
        tf.zeros_like(x) if g is None else tf.convert_to_tensor(g)
        for g, x in zip(gradients, like, strict=True)
    ]


def flat(tensors: list) -> tf.Tensor:
    """One vector of all entries."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], 0)


def to_vector(tensors: list) -> np.ndarray:
    """One array of all entries."""
    return np.array(flat(tensors))


def rows(tape, vector: tf.Tensor, sources: list) -> np.ndarray:
    """The Jacobian of a vector, one backward pass for each row."""
    found = []
    for unit in np.eye(len(vector)):
        row = tape.gradient(vector, sources, output_gradients=tf.constant(unit))
        found.append(to_vector(densify(row, sources)))
    return np.stack(found)
