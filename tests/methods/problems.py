"""Bilevel problems whose hypergradient is known, for the tests of all methods."""

import numpy as np
import tensorflow as tf


class Quadratic:
    """Ridge regression with one penalty per weight, in closed form.

    L(w, h) = ½‖Aw − y‖² + ½ Σ e^h w²;  Q(w, h) = ½‖Bw − z‖² + Σ sin h, so that there
    is a direct part too.

    Attributes:
        h: The hyperparameters, `[n]`.
        optimum: w*(h).
        hypergradient: dQ(w*(h), h)/dh.
        hessian: ∂²L/∂w².
    """

    def __init__(self, size=6, seed=0):
        generator = np.random.default_rng(seed)
        draw = lambda *shape: tf.constant(generator.normal(size=shape))  # noqa: E731
        self.a, self.y = draw(4 * size, size), draw(4 * size)
        self.b, self.z = draw(3 * size, size), draw(3 * size)
        self.h = draw(size)
        with tf.GradientTape() as tape:
            tape.watch(self.h)
            self.optimum = self.solve(self.h)
            loss = self.outer(self.optimum, self.h)
        self.hypergradient = tape.gradient(loss, self.h)
        self.hessian = self._hessian(self.h)

    def _hessian(self, h):
        return tf.transpose(self.a) @ self.a + tf.linalg.diag(tf.exp(h))

    def solve(self, h):
        """w*(h)."""
        right = tf.linalg.matvec(self.a, self.y, transpose_a=True)
        return tf.linalg.solve(self._hessian(h), right[:, None])[:, 0]

    def inner(self, w, h):
        """L."""
        error = tf.linalg.matvec(self.a, w) - self.y
        return 0.5 * tf.reduce_sum(error**2) + 0.5 * tf.reduce_sum(tf.exp(h) * w**2)

    def outer(self, w, h):
        """Q."""
        error = tf.linalg.matvec(self.b, w) - self.z
        return 0.5 * tf.reduce_sum(error**2) + tf.reduce_sum(tf.sin(h))


class SmallNetwork:
    """A tanh network in float64: penalties, example weights and a data scale are λ.

    `weights` and `hyperparameters` are dicts; minibatches are chosen by the step.
    """

    def __init__(self, seed=0, examples=12, batch=4):
        generator = np.random.default_rng(seed)
        draw = lambda *shape: tf.constant(generator.normal(size=shape))  # noqa: E731
        self.x, self.y = draw(examples, 3), draw(examples, 2)
        self.x_valid, self.y_valid = draw(9, 3), draw(9, 2)
        self.batch, self.batches = batch, examples // batch
        self.weights = {
            "kernel": 0.7 * draw(3, 4),
            "bias": 0.1 * draw(4),
            "out": 0.7 * draw(4, 2),
        }
        self.hyperparameters = {
            "decay": tf.constant([-2.0, -3.0], tf.float64),
            "example": 0.3 * draw(examples),
            "scale": tf.constant(1.1, tf.float64),
        }

    def predict(self, w, h, x):
        """The network."""
        return tf.tanh(h["scale"] * (x @ w["kernel"]) + w["bias"]) @ w["out"]

    def losses(self, w, h, rows):
        """Weighted squared error of every example among `rows`."""
        x, y = tf.gather(self.x, rows), tf.gather(self.y, rows)
        error = tf.reduce_mean((self.predict(w, h, x) - y) ** 2, -1)
        return tf.exp(tf.gather(h["example"], rows)) * error

    def penalty(self, w, h):
        """Weight decay, one factor per layer."""
        first = tf.reduce_sum(w["kernel"] ** 2) + tf.reduce_sum(w["bias"] ** 2)
        factors = tf.exp(h["decay"])
        return factors[0] * first + factors[1] * tf.reduce_sum(w["out"] ** 2)

    def inner(self, w, h):
        """L on all examples."""
        rows = tf.range(self.x.shape[0])
        return tf.reduce_mean(self.losses(w, h, rows)) + self.penalty(w, h)

    def inner_batch(self, w, h, step):
        """L on the minibatch of that step, in a fixed order."""
        rows = tf.range(self.batch) + self.batch * (step % self.batches)
        return tf.reduce_mean(self.losses(w, h, rows)) + self.penalty(w, h)

    def outer(self, w, h):
        """Q: squared error on other data, with the same data scale."""
        return tf.reduce_mean((self.predict(w, h, self.x_valid) - self.y_valid) ** 2)


def central_differences(function, point, step=1e-5):
    """dF/dp of a function of a structure of float64 tensors, entry by entry."""
    flat = [np.array(p) for p in tf.nest.flatten(point)]
    gradients = []
    for array in flat:
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            values, kept = [], array[index]
            for sign in (1, -1):
                array[index] = kept + sign * step
                moved = [tf.constant(f) for f in flat]
                values.append(float(function(tf.nest.pack_sequence_as(point, moved))))
            array[index] = kept
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(tf.constant(gradient))
    return tf.nest.pack_sequence_as(point, gradients)
