"""What methods that fit a best response must compute, by hand.

Every example has weights of its own, w + Δw, at its own λ. Predictions and losses are
those of a plain network there, linearised in Δw if the method does that. A step along
their gradients is compared with the step that the method takes.
"""

import numpy as np
import tensorflow as tf

from tests.cross.hypergradients import MOMENTUM, RATE, take_step
from tests.cross.point import Point, densify, to_double

# The perturbations of four examples, before σ multiplies them.
NOISE = np.random.default_rng(17).normal(size=(4, 2))
RESPONSE_RATE = 0.125


class Response:
    """Δw of every weight as a function of δ and of the response's variables.

    Args:
        model: The model, from which numbers are read.
    """

    def __init__(self, model):
        self._weights = model.network.weights
        self._layers = model.network.responding_layers
        self._order = [id(v) for v in model.network.response_variables]
        self.variables = [to_double(v) for v in model.network.response_variables]

    def __call__(self, variables: list, delta: tf.Tensor) -> list:
        """Δw, a list of tensors with examples in front; zeros for other weights."""
        found = {}
        for layer in self._layers:
            for name, response in layer.responses.items():
                numbers = [
                    variables[self._order.index(id(v))] for v in response.weights
                ]
                found[id(getattr(layer, f"_{name}", getattr(layer, name)))] = numbers
        return [self._shift(w, found.get(id(w)), delta) for w in self._weights]

    def _shift(self, weight, numbers, delta):
        if numbers is None:
            return tf.zeros([len(delta), *weight.shape], tf.float64)
        if len(numbers) == 1:
            return tf.tensordot(delta, numbers[0], 1)
        direction, factor = numbers
        scale = tf.reshape(
            delta @ factor, [len(delta), *[1] * (direction.ndim - 1), -1]
        )
        return scale * direction


def perturbed_loss(point: Point, shifts, batch, h, linearized, weights):
    """L of every example at weights w + Δw and its own λ, `[n, 2]`."""
    tiled = point.tiled(weights, batch)
    moved = [w + s for w, s in zip(tiled, shifts, strict=True)]
    if linearized:
        # The Jacobian counts as a constant.
        fixed = [tf.stop_gradient(w) for w in tiled]
        with tf.autodiff.ForwardAccumulator(fixed, shifts) as tangents:
            plain = point.outputs(fixed, batch, True)
        pairs = zip(point.outputs(tiled, batch, True), plain, strict=True)
        outputs = [y + tangents.jvp(p) for y, p in pairs]
    else:
        outputs = point.outputs(moved, batch, True)
    losses = point.condition.losses(outputs, batch) + point.penalties(moved, h)
    return tf.reduce_mean(losses)


def inner_step(model, point, batch, velocity):
    """Weights and response variables after an inner step, two lists."""
    method, response = model.method, Response(model)
    epsilon = NOISE[: len(batch[0])] * sigma(model)
    h = point.h + epsilon
    delta = tf.constant(epsilon) if method.centered else h
    weights, variables = point.weights, response.variables
    joint = getattr(method, "shared_pass", True)
    if not joint:
        weights, velocity = take_step(point, weights, velocity, point.h, batch)
    with tf.GradientTape() as tape:
        tape.watch([*weights, *variables])
        shifts = response(variables, delta)
        loss = perturbed_loss(point, shifts, batch, h, method.linearized, weights)
    sources = [*weights, *variables]
    slope = densify(tape.gradient(loss, sources), sources)
    if joint:
        weights = [
            w + MOMENTUM * v - RATE * g
            for w, v, g in zip(weights, velocity, slope, strict=False)
        ]
    slope = slope[len(weights) :]
    pairs = zip(variables, slope, strict=True)
    return weights, [x - RESPONSE_RATE * g for x, g in pairs]


def outer_gradient(model, point, batch):
    """dQ/dλ and dQ/dσ̃ through the response, where σ = softplus(σ̃)."""
    response = Response(model)
    raw = to_double(model.hyperparameters.raw_perturbation_scale)
    with tf.GradientTape() as tape:
        tape.watch([point.h, raw])
        at = point.h - tf.stop_gradient(point.h) if model.method.centered else point.h
        delta = at + NOISE[: len(batch[0])] * tf.math.softplus(raw)
        shifts = response(response.variables, delta)
        tiled = point.tiled(point.weights, batch)
        moved = [w + s for w, s in zip(tiled, shifts, strict=True)]
        outputs = point.outputs(moved, batch, False)
        value = tf.reduce_mean(point.condition.losses(outputs, batch))
    return [np.array(g) for g in tape.gradient(value, [point.h, raw])]


def sigma(model):
    """σ, `[2]`."""
    return np.logaddexp(0.0, np.array(model.hyperparameters.raw_perturbation_scale))
