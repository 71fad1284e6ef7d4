"""Laplace's evidence of a linear Keras model, at its best precisions."""

import contextlib
import functools

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from lbfgs import minimiser

import bilevel_tf as bt

# Columns of zeros change no evidence; with them one model does for all degrees.
COLUMNS = 10


def criterion(judgement, starts):
    """A function of features `[N, n]` and targets `[N]` that returns a judgement.

    Args:
        judgement: Class of (log evidence, A, λ).
        starts: log A and log λ to begin from, `[s, 2]`; the best is taken.
    """

    def judge(features, targets):
        features, targets = np.asarray(features), np.asarray(targets)
        count, columns = features.shape
        wide = np.zeros((count, max(COLUMNS, columns)))
        wide[:, :columns] = features
        with double_precision():
            tune = tuner(*wide.shape)
            x, y = tf.constant(wide), tf.constant(targets[:, None])
            score, values = tune(x, y, starts)
        return judgement(score, *values)

    return judge


@contextlib.contextmanager
def double_precision():
    """Keras in float64, in which two degrees that are nearly as good can be told."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def make_model(count, columns):
    """One Dense layer with a prior and a noise of unknown precision."""
    hp = bt.HyperparameterSpace(
        weights=bt.LogUniform(1e-8, 1e12, initial=1.0),
        noise=bt.LogUniform(1e-8, 1e12, initial=1.0),
    )
    inputs = keras.Input((columns,))
    layer = keras.layers.Dense(
        1,
        use_bias=False,
        kernel_initializer="zeros",
        kernel_regularizer=bt.NormalPrior(hp["weights"], data_size=count),
    )
    model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    model.compile(
        loss=bt.losses.GaussianLikelihood(hp["noise"]),
        method=bt.methods.ExactImplicit(),
        objective=bt.objectives.LaplaceEvidence(),
    )
    return model


@functools.cache
def tuner(count, columns):
    """A compiled function of x, y and starts: the best log evidence, with A and λ."""
    model = make_model(count, columns)
    space, method = model.hyperparameters, model.method

    def best(x, y, point):
        """Q and dQ/dλ at the weights trained with these hyperparameters."""
        problem = model.network.problem((x[None], y[None], None), (x, y, None))
        train = minimiser(problem.inner, tolerance=1e-10)
        problem.weights, _ = train(problem.weights, [point])
        problem.hyperparameters = [point]
        found = method.hypergradient(problem)
        return found.outer_loss, found.gradients[0]

    @tf.function(autograph=False)
    def tune(x, y, starts):
        objective = tf.function(lambda p: best(x, y, p), autograph=False)
        points = tf.map_fn(
            lambda logs: space.unconstrain(
                dict(zip(space.names, tf.unstack(tf.exp(logs)), strict=True))
            ),
            tf.convert_to_tensor(starts),
        )
        losses = tf.map_fn(lambda p: objective(p)[0], points)
        found = tfp.optimizer.bfgs_minimize(
            objective, points[tf.argmin(losses)], tolerance=1e-8, max_iterations=500
        )
        values = space.constrain(found.position)
        return -count * found.objective_value, [values[name] for name in space.names]

    return tune
