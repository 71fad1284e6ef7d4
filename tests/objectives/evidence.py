"""Models with an evidence, for the tests of `LaplaceEvidence`."""

import keras
import numpy as np
import scipy.stats
import tensorflow as tf

import bilevel_tf as bt

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy


def regression_data(count=20, outputs=1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 3))
    y = x @ rng.normal(size=(3, outputs)) + 0.4 * rng.normal(size=(count, outputs))
    return x, y


def space(**scales):
    return bt.HyperparameterSpace(
        {
            "precision": bt.LogUniform(1e-4, 1e4, initial=2.0),
            "noise": bt.LogUniform(1e-4, 1e4, initial=3.0),
            **scales,
        }
    )


def penalized(prior, bias_prior=None):
    """The arguments of a layer that give it priors."""
    return {"kernel_regularizer": prior, "bias_regularizer": bias_prior or prior}


def compiled(hp, inputs, outputs, objective=None, loss=None, **arguments):
    model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    defaults = {"optimizer": "sgd", "method": bt.methods.ExactImplicit()}
    model.compile(
        loss=loss or bt.losses.GaussianLikelihood(hp["noise"]),
        objective=objective or bt.objectives.LaplaceEvidence(),
        **{**defaults, **arguments},
    )
    return model


class LinearRegression:
    """A linear model whose evidence is known: y ~ N(0, λ⁻¹ I + Φ A⁻¹ Φᵀ)."""

    def __init__(self, objective=None, precision=2.0, **arguments):
        self.x, self.y = regression_data()
        precision = bt.LogUniform(1e-4, 1e4, initial=precision)
        self.hp = space(precision=precision)
        prior = bt.NormalPrior(self.hp["precision"], data_size=20)
        inputs = keras.Input((3,))
        fixed = bt.NormalPrior(0.5, data_size=20)
        self.layer = keras.layers.Dense(1, **penalized(prior, fixed))
        outputs = self.layer(inputs)
        self.model = compiled(self.hp, inputs, outputs, objective, **arguments)
        self.design = np.hstack([self.x, np.ones((20, 1))])
        self.train()

    def precisions(self, h):
        """A `[4]` and λ at an unconstrained vector."""
        values = self.hp.constrain(tf.convert_to_tensor(h))
        precision = np.broadcast_to(values["precision"], (3, 1))[:, 0]
        return np.append(precision, 0.5), float(values["noise"])

    def log_evidence(self, h=None):
        a, noise = self.precisions(self.hp.unconstrained if h is None else h)
        covariance = np.eye(20) / noise + self.design / a @ self.design.T
        return scipy.stats.multivariate_normal(cov=covariance).logpdf(self.y[:, 0])

    def train(self):
        """Give the model its most probable weights."""
        a, noise = self.precisions(self.hp.unconstrained)
        hessian = noise * self.design.T @ self.design + np.diag(a)
        w = np.linalg.solve(hessian, noise * self.design.T @ self.y)
        self.layer.set_weights([w[:3], w[3]])

    def problem(self):
        stacked = tf.constant(self.x)[None], tf.constant(self.y)[None], None
        return self.model.network.problem(stacked, (self.x, self.y, None))


def small_network(objective, kind="gaussian", activation=None, units=2):
    """A tanh network of 3-4-`units` and a batch of 6 examples for it."""
    hp = space(bias=bt.LogUniform(1e-4, 1e4, initial=np.linspace(0.5, 1.5, units)))
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, units))
    loss = None
    if kind == "categorical":
        y, loss = rng.integers(0, units, 6), CROSSENTROPY(from_logits=not activation)
    elif kind == "bernoulli":
        y = rng.integers(0, 2, (6, 1))
        loss = keras.losses.BinaryCrossentropy(from_logits=not activation)
    prior = bt.NormalPrior(hp["precision"], data_size=9)
    fixed = bt.NormalPrior(0.7, data_size=9)
    biased = bt.NormalPrior(hp["bias"], 0.1, data_size=9)
    inputs = keras.Input((3,))
    hidden = bt.HyperDense(4, "tanh", **penalized(prior, fixed))(inputs)
    outputs = keras.layers.Dense(units, activation, **penalized(prior, biased))(hidden)
    model = compiled(hp, inputs, outputs, objective, loss)
    return model, (tf.constant(x), tf.constant(y), None)


def convolutional_network(objective, kernel=2, rank=2, **arguments):
    """Two outputs of images, five wide, in two channels, and a batch of 4 of them."""
    hp = space()
    rng = np.random.default_rng(2)
    shape = (*[5] * rank, 2)
    x, y = rng.normal(size=(4, *shape)), rng.normal(size=(4, 2))
    prior = bt.NormalPrior(hp["precision"], data_size=7)
    fixed = bt.NormalPrior(0.7, data_size=7)
    inputs = keras.Input(shape)
    convolution = getattr(bt.layers, f"HyperConv{rank}D")(
        3, kernel, activation="tanh", **arguments, **penalized(prior, fixed)
    )
    features = keras.layers.Flatten()(convolution(inputs))
    outputs = keras.layers.Dense(2, **penalized(prior, fixed))(features)
    model = compiled(hp, inputs, outputs, objective)
    return model, (tf.constant(x), tf.constant(y), None)


def evidence_function(model, batch):
    """Q of weights and hyperparameters, and the current ones."""
    problem = model.network.problem(None, batch)
    return problem.outer_loss, problem.weights, problem.hyperparameters


def check_derivatives(model, batch):
    """Compare ∂Q/∂w and ∂Q/∂h with central differences, a random direction in each."""
    loss, weights, hyperparameters = evidence_function(model, batch)
    loss = tf.function(loss, autograph=False)
    with tf.GradientTape() as tape:
        tape.watch([weights, hyperparameters])
        value = loss(weights, hyperparameters)
    gradients = tape.gradient(value, [*weights, *hyperparameters])
    rng = np.random.default_rng(0)
    directions = [rng.normal(size=g.shape) for g in gradients]
    for index, direction in enumerate(directions):

        def along(step, index=index, direction=direction):
            point = [*weights, *hyperparameters]
            point[index] += step * direction
            return loss(point[:-1], point[-1:])

        expected = (along(1e-5) - along(-1e-5)) / 2e-5
        found = np.sum(gradients[index] * direction)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def gauss_newton_matrix(model, batch, data_size, curvature):
    """N/B · Σ Jᵀ Λ J, an example at a time; Λ = curvature(f) of one example's f."""
    weights = model.trainable_variables
    total = 0.0
    for example in batch[0]:
        with tf.GradientTape() as tape:
            outputs = model(example[None], training=True)[0]
        blocks = tape.jacobian(outputs, weights)
        jacobian = np.hstack([np.reshape(b, [len(outputs), -1]) for b in blocks])
        total += jacobian.T @ curvature(np.array(outputs)) @ jacobian
    return data_size / len(batch[0]) * total


def softmax_curvature(logits):
    p = np.exp(logits) / np.sum(np.exp(logits))
    return np.diag(p) - np.outer(p, p)


def log_determinant_part(model, batch):
    """log |H|, as the model's objective has it."""
    point = [tf.convert_to_tensor(v) for v in model.trainable_variables]
    h = [tf.convert_to_tensor(model.hyperparameters.unconstrained)]
    parts = model.objective.parts(model.network, point, h, batch)
    return parts["log_determinant"]


def flat_precisions(model):
    """A, a vector."""
    parts = []
    for variable in model.trainable_variables:
        precision = variable.regularizer.precision
        value = precision.value() if hasattr(precision, "value") else precision
        parts.append(np.broadcast_to(value, variable.shape).ravel())
    return np.concatenate(parts)


def check_graph_and_xla_agree(model, batch):
    """The objective and its gradients, traced and compiled, are those of eager mode."""

    def gradients():
        loss, target, direct = model.network.problem(None, batch).outer_gradients()
        return [loss, *target, *direct]

    eager = gradients()
    for jit in (False, True):
        found = tf.function(gradients, jit_compile=jit, autograph=False)()
        for a, b in zip(found, eager, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
