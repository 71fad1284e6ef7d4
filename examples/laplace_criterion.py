"""Laplace's evidence of a linear Keras model, at its best precisions."""

import contextlib
import functools

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from lbfgs import minimiser

import bilevel_tf as bt

# Columns of zeros do not change the evidence. With them, one model fits all degrees.
COLUMNS = 10


def criterion(judgement, starts):
    """Return a function of features `[N, n]` and targets `[N]` that judges them.

    Args:
        judgement: Class of the result, made of log evidence, A and λ.
        starts: Values of log A and log λ, `[s, 2]`. The search begins at the best.
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
    """Make Keras use float64, to tell apart two degrees that are nearly as good."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)


def make_model(count, columns):
    """Return one Dense layer with a prior and a noise whose precisions are tuned."""
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
    """Return a compiled function of x, y and starts.

    It returns the best log evidence, and the list of A and λ.
    """
    model = make_model(count, columns)
    space, method = model.hyperparameters, model.method

    def best(x, y, point):
        """Return Q and dQ/dλ at the weights trained with these hyperparameters."""
        problem = model.network.problem((x[None], y[None], None), (x, y, None))
        train = minimiser(problem.inner, tolerance=1e-10)
        problem.weights, _ = train(problem.weights, [point])
        problem.hyperparameters = [point]
        found = method.hypergradient(problem)
        return found.outer_loss, found.gradients[0]

    @tf.function(autograph=False)
    def tune(x, y, starts):
        # BFGS calls it in many places: its graph would be slow to optimise inlined.
        objective = tf.function(
            lambda p: best(x, y, p),
            autograph=False,
            experimental_attributes={"_noinline": True},
        )
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
