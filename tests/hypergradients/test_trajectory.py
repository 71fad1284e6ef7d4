"""Hypergradients through training runs."""

import keras
import pytest
import tensorflow as tf

from bilevel_tf.hypergradients.functional import hypergradient
from tests.hypergradients.problems import central_differences

pytestmark = pytest.mark.usefixtures("float64")

STEPS = 7


def trained(network, optimizer, h, weights=None, steps=STEPS):
    """θ_T by the Keras optimizer itself, on variables; a compiled function of λ."""
    weights = network.weights if weights is None else weights
    variables = {
        name: keras.Variable(w, dtype="float64") for name, w in weights.items()
    }
    names = list(variables)
    optimizer.build([variables[n] for n in names])

    @tf.function
    def step(h, t):
        values = {n: v.value for n, v in variables.items()}
        with tf.GradientTape() as tape:
            loss = network.inner_batch(values, h, t)
        gradients = tape.gradient(loss, [values[n] for n in names])
        optimizer.apply(gradients, [variables[n] for n in names])

    for t in range(steps):
        step(h, tf.constant(t))
    return {n: tf.identity(v.value) for n, v in variables.items()}


def by_differences(network, make_optimizer, steps=STEPS, point=None):
    """dQ(θ_T(λ), λ)/dλ by central differences of real training runs."""

    def outer(h):
        return network.outer(trained(network, make_optimizer(), h, steps=steps), h)

    return central_differences(outer, point or network.hyperparameters)


def found(network, optimizer, method, **kwargs):
    given = {"weights": network.weights, "hyperparameters": network.hyperparameters}
    return hypergradient(
        network.inner_batch,
        network.outer,
        **{**given, **kwargs},
        method=method,
        optimizer=optimizer,
    )
