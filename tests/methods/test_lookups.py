"""Losses that look up rows of a weight, whose gradients TensorFlow keeps sparse."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt

METHODS = {
    "ExactImplicit": bt.methods.ExactImplicit(),
    "ConjugateGradient": bt.ConjugateGradient(10, 1e-12),
    "HOAG": bt.methods.HOAG(1e-12),
    "Neumann": bt.Neumann(60),
    "GaussNewton": bt.methods.GaussNewton(10, 1e-12, damping=0.0),
}
STEPS = {
    "DARTS": bt.methods.DARTS(0.1),
    "DARTS, differences": bt.methods.DARTS(0.1, "finite_difference", 1e-4),
    "Greedy": bt.methods.Greedy(),
    "Unrolled": bt.Unrolled(3),
    "checkpointed": bt.Unrolled(3, checkpointed=True),
    "ForwardMode": bt.methods.ForwardMode(3),
    "RMAD": bt.methods.RMAD(3),
    "DrMAD": bt.methods.DrMAD(1),
}


class Lookups:
    """Ridge regression on the rows of a table and a vector of factors.

    Row 0 stands in neither loss, and row 4 in the outer one alone.
    """

    def __init__(self, dtype):
        generator = np.random.default_rng(0)
        self.table = tf.constant(generator.normal(size=(5, 2)), dtype)
        self.rows = tf.constant([1, 2, 3, 2])
        self.y = tf.constant(generator.normal(size=(4, 2)), dtype)
        self.factors = tf.constant([0.3, 0.5, 0.2, 0.9, 0.4], dtype)

    def predict(self, w, h):
        return tf.gather(w, self.rows)

    def loss(self, outputs, h):
        return tf.reduce_sum((outputs - self.y) ** 2)

    def penalty(self, w, h):
        rows = tf.constant([1, 2, 3])
        return tf.reduce_sum(tf.gather(h, rows)[:, None] * tf.gather(w, rows) ** 2)

    def inner(self, w, h):
        return self.loss(self.predict(w, h), h) + self.penalty(w, h)

    def outer(self, w, h):
        return tf.reduce_sum((tf.gather(w, [1, 2, 3, 4]) - 0.7) ** 2)

    def exact(self):
        """dQ/dλ: H is diagonal, 2 (count + h) in every row."""
        w, h = np.array(self.table), np.array(self.factors)
        counts = np.array([0.0, 1.0, 2.0, 1.0, 0.0])
        used = (counts > 0)[:, None]
        x = np.where(used, (w - 0.7) / np.maximum(counts + h, 1e-9)[:, None], 0.0)
        return -np.sum(x * 2 * w, 1) * (counts > 0)


def found(problem, method, how, **arguments):
    composed = bt.methods.ComposedLoss(problem.predict, problem.loss, problem.penalty)
    inner = composed if isinstance(method, bt.methods.GaussNewton) else problem.inner

    def run():
        return bt.hypergradient(
            inner, problem.outer, problem.table, problem.factors, method, **arguments
        )

    if how != "eager":
        run = tf.function(run, jit_compile=how == "xla", autograph=False)
    return run()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize("name", METHODS)
def test_rows_without_examples_are_left_out_of_the_system(name, how):
    problem = Lookups("float64")
    result = found(problem, METHODS[name], how)
    np.testing.assert_allclose(result.gradients, problem.exact(), rtol=1e-9)
    assert float(result.report["residual"]) < 1e-9
    assert bt.methods.Status(int(result.report["status"])).name == "CONVERGED"


def test_the_residual_in_single_precision():
    problem = Lookups("float32")
    result = found(problem, METHODS["ExactImplicit"], "eager")
    np.testing.assert_allclose(result.gradients, problem.exact(), rtol=1e-5)
    assert float(result.report["residual"]) < 1e-6
    assert np.isfinite(float(result.report["gap"]))


@pytest.mark.parametrize("name", STEPS)
def test_steps(name):
    """Against a tape over dense steps, with the lookup as a product."""
    problem, method = Lookups("float64"), STEPS[name]
    ones = tf.one_hot(problem.rows, 5, dtype=tf.float64)
    rate, momentum = (0.1, 0.0) if "DARTS" in name else (0.125, 0.5)
    mask = tf.constant([0.0, 1.0, 1.0, 1.0, 0.0], tf.float64)
    w, velocity, h = problem.table, tf.zeros_like(problem.table), problem.factors
    with tf.GradientTape() as tape:
        tape.watch(h)
        for _ in range(getattr(method, "steps", 1)):
            slope = 2 * tf.transpose(ones) @ (ones @ w - problem.y)
            slope += 2 * (mask * h)[:, None] * w
            velocity = momentum * velocity - rate * slope
            w += velocity
        value = problem.outer(w, h)
    sgd = keras.optimizers.SGD(0.125, momentum=0.5)
    arguments = {} if "DARTS" in name else {"optimizer": sgd}
    result = found(problem, method, "eager", **arguments)
    expected = tape.gradient(value, h)
    np.testing.assert_allclose(result.gradients, expected, rtol=1e-7, atol=1e-9)


def test_fisher():
    """The mean of g·gᵀ, with a gather of λ by example too."""
    problem = Lookups("float64")

    def losses(w, h):
        errors = tf.reduce_sum((tf.gather(w, problem.rows) - problem.y) ** 2, 1)
        return errors + problem.penalty(w, h)

    damping = 0.1
    method = bt.methods.EmpiricalFisher(50, 1e-14, damping)
    result = bt.hypergradient(
        losses, problem.outer, problem.table, problem.factors, method
    )
    w, h, y = (np.array(a) for a in (problem.table, problem.factors, problem.y))
    gradients = np.zeros((4, 5, 2))
    gradients[:, 1:4] = 2 * h[1:4, None] * w[1:4]
    for i, row in enumerate(np.array(problem.rows)):
        gradients[i, row] += 2 * (w[row] - y[i])
    flat = gradients.reshape(4, 10)
    b = 2 * (w - 0.7)
    b[0] = 0.0
    x = np.linalg.solve(flat.T @ flat / 4 + damping * np.eye(10), b.ravel())
    used = np.array([0.0, 1.0, 1.0, 1.0, 0.0])
    expected = -used * np.sum(x.reshape(5, 2) * 2 * w, 1)
    np.testing.assert_allclose(result.gradients, expected, rtol=1e-7, atol=1e-12)


def test_an_entry_that_only_looks_unused_is_solved_for():
    """Both its gradient and its entry of H·b are 0, by chance."""
    h = tf.constant([[2.0, -1.0], [-1.0, 1.0]], tf.float64)
    result = bt.hypergradient(
        lambda w, p: (
            0.5 * tf.reduce_sum(w * tf.linalg.matvec(h, w)) - w[1] * p + p * w[0]
        ),
        lambda w, p: w[0] + w[1],
        weights=tf.zeros(2, tf.float64),
        hyperparameters=tf.constant(0.0, tf.float64),
        method=bt.ConjugateGradient(10, 1e-12),
    )
    # H⁻¹b is (2, 3), and ∂²L/∂w∂p is (1, −1).
    np.testing.assert_allclose(result.gradients, 3.0 - 2.0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["Adam", "Adagrad", "RMSprop"])
def test_training_takes_the_steps_that_are_differentiated(kind):
    """Keras squares a sparse gradient before it adds what belongs to one row."""
    hp = bt.HyperparameterSpace(l2=bt.Positive(0.1))
    inputs = keras.Input((3,), dtype="int32")
    embedding = keras.layers.Embedding(3, 2)
    mean = keras.layers.GlobalAveragePooling1D()(embedding(inputs))
    outputs = keras.layers.Dense(1, kernel_regularizer=bt.L2(hp["l2"]))(mean)
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    optimizer = getattr(keras.optimizers, kind)(0.1)
    model.compile(optimizer, "mse", method=bt.methods.ForwardMode(real_time=True))
    batch = tf.constant([[1, 1, 2], [2, 1, 0]]), tf.constant([[1.0], [-2.0]]), None
    stacked = batch[0][None], tf.cast(batch[1], tf.float64)[None], None
    problem = model.network.problem(stacked, None)
    run = model.method.run(problem)
    state = run.start()
    for _ in range(3):
        state = run.step(0, state)
    expected = run.weights(state)
    for _ in range(3):
        model.method.inner_step(model.network, batch[0], stacked[1][0], None)
    for weight, wanted in zip(model.network.weights, expected, strict=True):
        np.testing.assert_allclose(weight, wanted, rtol=1e-9)
