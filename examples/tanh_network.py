"""A small network on scikit-learn's digits, with a penalty factor for every input.

The network has one hidden tanh layer and uses double precision. Biases are the weights
of an input that is always 1, so that the weights are two matrices W. Each of their rows
has a factor:

    L(W, λ) = mean cross-entropy of the training set + ½ Σ_layers Σ_i exp(λ_i) ‖W_i‖²
    Q(W)    = mean cross-entropy of the validation set

Everything is smooth, and every weight has a penalty. Hence L has minima with a positive
definite Hessian.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import bilevel_tf as bt


class TanhNetwork:
    """Data, losses and starting points.

    Args:
        examples: Number of training examples, and also of validation examples. The
            other digits are the test set. Defaults to 300.
        width: Number of hidden units. Defaults to 10.
        initial: λ of all factors at the start. Defaults to −5.
        seed: Seed of the split and of the first weights. Defaults to 0.

    Attributes:
        inner_loss: L, a `bilevel_tf.methods.ComposedLoss`.
        weights: W at the start, a list.
        hyperparameters: λ at the start, a list.
    """

    def __init__(self, examples=300, width=10, initial=-5.0, seed=0):
        x, y = load_digits(return_X_y=True)
        x = np.hstack([x / 16.0, np.ones((len(x), 1))])
        sizes = {"stratify": y, "random_state": seed}
        x_in, self._x_test, y_in, self._y_test = train_test_split(
            x, y, train_size=2 * examples, **sizes
        )
        self._train = tf.constant(x_in[:examples]), tf.constant(y_in[:examples])
        self._valid = tf.constant(x_in[examples:]), tf.constant(y_in[examples:])
        shapes = (65, width), (width + 1, 10)
        rng = np.random.default_rng(seed)
        self.weights = [tf.constant(rng.normal(0, s[0] ** -0.5, s)) for s in shapes]
        self.hyperparameters = [tf.fill([s[0]], np.float64(initial)) for s in shapes]
        self.inner_loss = bt.methods.ComposedLoss(
            lambda w, h: logits(w, self._train[0]),
            lambda outputs, h: tf.reduce_mean(cross_entropy(outputs, self._train[1])),
            penalty,
        )

    def example_losses(self, weights, hyperparameters):
        """Return L as one loss per example, each with the whole penalty."""
        x, y = self._train
        losses = cross_entropy(logits(weights, x), y)
        return losses + penalty(weights, hyperparameters)

    def outer_loss(self, weights, hyperparameters=None):
        """Return Q."""
        x, y = self._valid
        return tf.reduce_mean(cross_entropy(logits(weights, x), y))

    def test_loss(self, weights):
        """Return the mean cross-entropy of the test set."""
        outputs = logits(weights, self._x_test)
        return tf.reduce_mean(cross_entropy(outputs, self._y_test))

    def to_keras(self, weights):
        """Return a Keras model whose inputs are digits of 64 numbers from 0 to 1."""
        hidden, output = (w.numpy() for w in weights)
        layers = [
            keras.Input((64,)),
            keras.layers.Dense(hidden.shape[1], activation="tanh"),
            keras.layers.Dense(10),
        ]
        model = keras.Sequential(layers)
        model.set_weights([hidden[:-1], hidden[-1], output[:-1], output[-1]])
        return model


def logits(weights, x):
    """Return the outputs of the network, `[n, 10]`."""
    hidden = tf.tanh(x @ weights[0])
    return hidden @ weights[1][:-1] + weights[1][-1]


def cross_entropy(outputs, y):
    """Return one loss per example."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs)


def penalty(weights, hyperparameters):
    """Return ½ Σ exp(λ_i) ‖W_i‖²."""
    return tf.add_n(
        [
            0.5 * tf.reduce_sum(tf.exp(h)[:, None] * w**2)
            for w, h in zip(weights, hyperparameters, strict=True)
        ]
    )
