"""Predictions of networks with a posterior over their weights, averaged over draws."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf._arguments import check_count
from bilevel_tf.hyperparameters.pass_in_force import sampling
from bilevel_tf.hyperparameters.values import value_of
from bilevel_tf.layers.variational.variational_layer import variational_layers
from bilevel_tf.losses import GaussianLikelihood
from bilevel_tf.objectives.likelihoods import loss_object

_CATEGORICAL = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
)
_BINARY = keras.losses.BinaryCrossentropy


@dataclasses.dataclass(frozen=True)
class PredictiveResult:
    """Predictions averaged over draws of the weights, as NumPy arrays.

    `predictive` returns it.

    Attributes:
        mean: With a cross-entropy the mean probabilities, else the mean of the
            outputs. It has the shape of the model's outputs, `[examples, …]`.
        variance: In the same shape. With a cross-entropy the variance of the
            probabilities between draws. With `GaussianLikelihood` the variance of the
            targets: that of the outputs between draws plus the noise 1/λ. Else the
            variance of the outputs between draws.
        entropy: Entropy of the mean probabilities, `[examples]`, in nats. It says how
            uncertain the prediction is. Defaults to `None`, its value without a
            cross-entropy.
        mutual_information: `entropy` minus the mean entropy of the draws,
            `[examples]`, in nats. It is the part of the uncertainty that comes from
            doubt about the weights, and that more data would remove. Defaults to
            `None`, its value without a cross-entropy.

    Example:

    >>> found = bt.posterior.PredictiveResult(np.array([[0.5]]), np.array([[0.01]]))
    >>> found.entropy is None
    True
    """

    mean: np.ndarray
    variance: np.ndarray
    entropy: np.ndarray | None = None
    mutual_information: np.ndarray | None = None


def predictive(
    model: keras.Model, x: Any, draws: int = 32, batch_size: int = 32
) -> PredictiveResult:
    """Return the predictive distribution of a model with variational layers.

    Every draw is one network, which predicts all examples of a batch. The loss that
    the model was compiled with determines what the outputs mean: probabilities or
    logits under a cross-entropy, the mean of a Gaussian under `GaussianLikelihood`,
    plain numbers under any other loss. Each call traces the model once.

    Args:
        model: A compiled `BilevelModel` or `keras.Model` with one output.
        x: Inputs: an array `[examples, …]`, or a list or dict of arrays if the model
            has several inputs.
        draws: Number of networks per batch, at least 2. Defaults to 32, with which
            the standard error of the mean is less than a fifth of the standard
            deviation between draws.
        batch_size: Number of examples per batch. Defaults to 32, as in Keras.

    Returns:
        A `PredictiveResult`.

    Raises:
        ValueError: If the model has no variational layer, several outputs or no loss,
            or if `draws` or `batch_size` is not a whole number in its range.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e4, initial=1.0))
    >>> prior = bt.NormalPrior(hp["precision"], data_size=100)
    >>> inputs = keras.Input((2,))
    >>> outputs = bt.VariationalDense(3, prior=prior)(inputs)
    >>> model = keras.Model(inputs, outputs)
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile(loss=loss)
    >>> found = bt.predictive(model, np.ones((5, 2), "float32"))
    >>> found.mean.shape, found.mutual_information.shape
    ((5, 3), (5,))

    The examples about which the network is most in doubt come last here:

    >>> doubtful = np.argsort(found.mutual_information)
    """
    check_count(draws, "draws", 2)
    check_count(batch_size, "batch_size", 1)
    variational_layers(_keras.flatten_layers(model), "predictive")
    if len(model.outputs) > 1:
        raise ValueError(
            "`model` must have one output. Make a keras.Model for each output. "
            f"Received: a model with {len(model.outputs)} outputs"
        )
    if model.loss is None:
        raise ValueError(
            "`model` must be compiled with a loss, which says what its outputs mean. "
            "Received: a model without a loss"
        )
    [loss] = map(loss_object, keras.tree.flatten(model.loss))
    # TensorFlow would stack a list of arrays into one array.
    x = tuple(x) if isinstance(x, list) and len(model.inputs) > 1 else x
    data = tf.data.Dataset.from_tensor_slices(x).batch(batch_size)
    signature = [data.element_spec]
    moments = tf.function(
        lambda inputs: _compute_moments(model, loss, inputs, draws),
        input_signature=signature,
    )
    batches = [[np.asarray(part) for part in moments(batch)] for batch in data]
    mean, variance, mean_entropy = (
        np.concatenate(parts) for parts in zip(*batches, strict=True)
    )
    if isinstance(loss, GaussianLikelihood):
        variance += 1.0 / np.asarray(value_of(loss.precision, mean.dtype.name))
    if not isinstance(loss, (*_CATEGORICAL, _BINARY)):
        return PredictiveResult(mean, variance)
    entropy = np.asarray(_compute_entropy(loss, tf.constant(mean)))
    return PredictiveResult(mean, variance, entropy, entropy - mean_entropy)


def _compute_moments(model, loss, inputs, draws):
    """Return mean and variance over draws, and the mean of the draws' entropies."""

    def draw():
        with sampling():
            outputs = model(inputs, training=False)
        return _read_outputs(loss, tf.cast(outputs, model.variable_dtype))

    first = draw()

    # Differences from the first draw are small, and their sums keep their digits.
    def body(index, total, squares, entropy):
        values = draw()
        difference = values - first
        return (
            index + 1,
            total + difference,
            squares + tf.square(difference),
            entropy + _compute_entropy(loss, values),
        )

    zeros = tf.zeros_like(first)
    start = (1, zeros, zeros, _compute_entropy(loss, first))
    _, total, squares, entropy = tf.while_loop(
        lambda index, *_: index < draws, body, start
    )
    mean = total / draws
    variance = (squares - draws * tf.square(mean)) / (draws - 1)
    return first + mean, tf.maximum(variance, 0.0), entropy / draws


def _read_outputs(loss, outputs):
    """Return probabilities under a cross-entropy, else the outputs."""
    if getattr(loss, "from_logits", False):
        binary = isinstance(loss, _BINARY)
        return tf.sigmoid(outputs) if binary else tf.nn.softmax(outputs)
    return outputs


def _compute_entropy(loss, values):
    """Return Σ −p log p of every example; zeros without a cross-entropy."""
    if isinstance(loss, _BINARY):
        terms = _multiply_by_log(values) + _multiply_by_log(1.0 - values)
    elif isinstance(loss, _CATEGORICAL):
        terms = _multiply_by_log(values)
    else:
        terms = tf.zeros_like(values)
    return -tf.reduce_sum(terms, list(range(1, terms.shape.rank)))


def _multiply_by_log(probability):
    """Return p log p, which is 0 at p = 0."""
    return tf.math.multiply_no_nan(tf.math.log(probability), probability)
