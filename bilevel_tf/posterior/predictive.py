"""What networks with a posterior over their weights predict, averaged over draws."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import count
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

    Attributes:
        mean: Probabilities under a cross-entropy, else the mean of the outputs; shaped
            as the model's outputs.
        variance: In that shape. Of the probabilities between draws; else of the
            outputs, under `GaussianLikelihood` of the targets: that between draws and
            the noise 1/λ.
        entropy: Of the mean probabilities, `[examples]`, in nats: how uncertain the
            prediction is. `None` without a cross-entropy.
        mutual_information: `entropy` less the mean entropy of the draws: how much of
            it is doubt about the weights, which more data would remove.
    """

    mean: np.ndarray
    variance: np.ndarray
    entropy: np.ndarray | None = None
    mutual_information: np.ndarray | None = None


def predictive(model, x, draws=32, batch_size=32):
    """The predictive distribution of a model with variational layers.

    Every draw is one network for all examples of a batch. The loss that the model was
    compiled with says what its outputs mean. It is traced once per call.

    Args:
        model: A `BilevelModel` or plain `keras.Model` with one output.
        x: Inputs, arrays as for `predict`.
        draws: Networks per batch, at least 2. Defaults to 32: the error of a mean is
            then less than a fifth of the standard deviation between draws.
        batch_size: As in Keras.

    Returns:
        A `PredictiveResult`.

    Raises:
        ValueError: If the model has no variational layer, several outputs or no
            loss, or a count is out of range.

    Example:

    >>> found = bt.predictive(model, x_test)
    >>> doubtful = np.argsort(found.mutual_information)[-10:]
    """
    count(draws, "draws", 2)
    count(batch_size, "batch_size", 1)
    variational_layers(model._flatten_layers(include_self=False), "predictive")
    if len(model.outputs) > 1:
        raise ValueError(
            "`model` must have one output. Received: a model with "
            f"{len(model.outputs)} outputs; make a keras.Model of each."
        )
    if model.loss is None:
        raise ValueError(
            "`model` must be compiled: the loss says what its outputs mean. "
            "Received: a model without a loss"
        )
    [loss] = map(loss_object, keras.tree.flatten(model.loss))
    # TensorFlow takes a list for one array.
    x = tuple(x) if isinstance(x, list) and len(model.inputs) > 1 else x
    data = tf.data.Dataset.from_tensor_slices(x).batch(batch_size)
    signature = [data.element_spec]
    moments = tf.function(
        lambda inputs: _moments(model, loss, inputs, draws), input_signature=signature
    )
    batches = [[np.asarray(part) for part in moments(batch)] for batch in data]
    mean, variance, mean_entropy = map(np.concatenate, zip(*batches, strict=True))
    if isinstance(loss, GaussianLikelihood):
        variance += 1.0 / np.asarray(value_of(loss.precision, mean.dtype))
    if not isinstance(loss, (*_CATEGORICAL, _BINARY)):
        return PredictiveResult(mean, variance)
    entropy = np.asarray(_entropy(loss, tf.constant(mean)))
    return PredictiveResult(mean, variance, entropy, entropy - mean_entropy)


def _moments(model, loss, inputs, draws):
    """Mean and variance over draws, and the mean of the draws' entropies."""

    def draw():
        with sampling():
            outputs = model(inputs, training=False)
        return _read(loss, tf.cast(outputs, model.variable_dtype))

    first = draw()

    # Sums of what is near zero keep their digits.
    def body(index, total, squares, entropy):
        values = draw()
        apart = values - first
        return (
            index + 1,
            total + apart,
            squares + tf.square(apart),
            entropy + _entropy(loss, values),
        )

    zeros = tf.zeros_like(first)
    _, total, squares, entropy = tf.while_loop(
        lambda index, *_: index < draws, body, (1, zeros, zeros, _entropy(loss, first))
    )
    mean = total / draws
    variance = (squares - draws * tf.square(mean)) / (draws - 1)
    return first + mean, tf.maximum(variance, 0.0), entropy / draws


def _read(loss, outputs):
    """Probabilities under a cross-entropy, else the outputs."""
    if getattr(loss, "from_logits", False):
        binary = isinstance(loss, _BINARY)
        return tf.sigmoid(outputs) if binary else tf.nn.softmax(outputs)
    return outputs


def _entropy(loss, values):
    """Σ −p log p of every example; zeros without a cross-entropy."""
    if isinstance(loss, _BINARY):
        terms = _negentropy(values) + _negentropy(1.0 - values)
    elif isinstance(loss, _CATEGORICAL):
        terms = _negentropy(values)
    else:
        terms = tf.zeros_like(values)
    return -tf.reduce_sum(terms, list(range(1, terms.shape.rank)))


def _negentropy(probability):
    return tf.math.multiply_no_nan(tf.math.log(probability), probability)
