"""Truncated reverse mode against hypertorch's numbers.

Source: hypertorch (github.com/prolearner/hypertorch), the notebook
examples/logistic_regression.ipynb, run in float32.

    inner   mean logistic loss of 500 examples + ½ Σ h_i w_i², w_0 = 0,
            100 steps of gradient descent at 0.1, restarted at every outer step
    outer   mean logistic loss of 500 other examples; the hypergradient goes back
            through the last 10 steps; v ← 0.9 v + g, h ← max(h − v, 1e-8), h_0 = 1

Compared: the inner loss at h = 1, and the validation loss along 990 outer steps, by
`bt.hypergradient` with `bt.Unrolled`, in double precision. Tolerance: 1e-6 absolute,
which their single precision asks for; the differences are below 1e-7.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.model_selection import train_test_split

import bilevel_tf as bt

INNER_LOSS = {0: 0.693147242, 10: 0.628559113, 99: 0.624089837}
VALIDATION_LOSS = {
    0: 0.574398944,
    10: 0.533767879,
    20: 0.361521870,
    50: 0.294466972,
    100: 0.285354406,
    200: 0.281670004,
    400: 0.280898839,
    600: 0.280662417,
    800: 0.280510157,
    990: 0.280506492,
}
TOLERANCE = 1e-6


class LogisticRegression:
    """The notebook's data and losses."""

    def __init__(self):
        # The stream of the notebook's `np.random.seed(1)`.
        random = np.random.RandomState(1)
        w = random.randn(20)
        x = random.randn(1000, 20)
        y = (x @ w + 0.1 * random.randn(1000) > 0).astype(float)
        split = train_test_split(x, y, test_size=0.5, random_state=random)
        self.x, self.x_valid, self.y, self.y_valid = map(tf.constant, split)
        self.optimizer = keras.optimizers.SGD(0.1)

    def inner(self, w, h):
        penalty = 0.5 * tf.reduce_sum(h * w**2)
        return mean_logistic_loss(self.x, self.y, w) + penalty

    def outer(self, w, h):
        return mean_logistic_loss(self.x_valid, self.y_valid, w)

    def hypergradient(self, h, steps=100, truncation=10):
        return bt.hypergradient(
            self.inner,
            self.outer,
            weights=tf.zeros(20, tf.float64),
            hyperparameters=h,
            method=bt.Unrolled(steps, truncation=truncation),
            optimizer=self.optimizer,
        )


def mean_logistic_loss(x, y, w):
    logits = tf.linalg.matvec(x, w)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits)
    return tf.reduce_mean(losses)


def test_inner_loss():
    problem, h = LogisticRegression(), tf.ones(20, tf.float64)
    start = tf.zeros(20, tf.float64)
    found = {0: problem.inner(start, h)}
    for steps in (10, 99):
        trained = problem.hypergradient(h, steps).weights
        found[steps] = problem.inner(trained, h)
    for step, expected in INNER_LOSS.items():
        assert abs(found[step] - expected) < TOLERANCE, step


def test_validation_loss_along_the_outer_steps():
    problem, traces = LogisticRegression(), []

    @tf.function(jit_compile=True, autograph=False)
    def outer_step(h, velocity):
        traces.append(None)
        found = problem.hypergradient(h)
        velocity = 0.9 * velocity + found.gradients
        return found.outer_loss, tf.maximum(h - velocity, 1e-8), velocity

    h, velocity = tf.ones(20, tf.float64), tf.zeros(20, tf.float64)
    losses = []
    for _ in range(max(VALIDATION_LOSS) + 1):
        loss, h, velocity = outer_step(h, velocity)
        losses.append(float(loss))
    assert len(traces) == 1
    for step, expected in VALIDATION_LOSS.items():
        assert abs(losses[step] - expected) < TOLERANCE, step
