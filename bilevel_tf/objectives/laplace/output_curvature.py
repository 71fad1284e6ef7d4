"""Natural parameters of likelihoods, and the curvature of likelihoods in these."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.values import mean_value
from bilevel_tf.losses import GaussianLikelihood


def natural_parameters(loss: keras.losses.Loss, outputs: tf.Tensor) -> tf.Tensor:
    """Return the logits, or the mean of a `GaussianLikelihood`.

    The Gauss-Newton matrix of these is the Fisher information of the weights. It does
    not depend on whether the network ends before or after its softmax or sigmoid.

    Args:
        loss: The likelihood.
        outputs: Outputs of the network, `[batch, C]`.

    Returns:
        A tensor `[batch, C]`.
    """
    if isinstance(loss, GaussianLikelihood) or loss.from_logits:
        return outputs
    # Keras clips probabilities in the same way.
    least = keras.backend.epsilon()
    probabilities = tf.clip_by_value(outputs, least, 1.0 - least)
    logits = tf.math.log(probabilities)
    if isinstance(loss, keras.losses.BinaryCrossentropy):
        return logits - tf.math.log1p(-probabilities)
    return logits


def curvature_root(loss: keras.losses.Loss, parameters: tf.Tensor) -> tf.Tensor:
    """Return R with R·Rᵀ = −∂² log p(y|f) / ∂f², which is the same for all y.

    Args:
        loss: The likelihood.
        parameters: f, the natural parameters of the likelihood, `[batch, C]`.

    Returns:
        A tensor `[batch, C, C]`.
    """
    if isinstance(loss, GaussianLikelihood):
        root = tf.sqrt(mean_value(loss.precision, parameters.dtype))
        return root * tf.linalg.diag(tf.ones_like(parameters))
    if isinstance(loss, keras.losses.BinaryCrossentropy):
        log_variance = tf.math.log_sigmoid(parameters) + tf.math.log_sigmoid(
            -parameters
        )
        return tf.exp(0.5 * log_variance)[..., None]
    # R = diag(√p) − p √pᵀ; then R·Rᵀ = diag(p) − p pᵀ.
    logs = tf.nn.log_softmax(parameters)
    roots = tf.exp(0.5 * logs)
    return tf.linalg.diag(roots) - tf.exp(logs)[..., None] * roots[:, None]
