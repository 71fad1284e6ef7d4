"""Natural parameters of likelihoods, and the curvature of these."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.values import mean_value
from bilevel_tf.losses import GaussianLikelihood


def natural_parameters(loss, outputs):
    """The logits, or the mean of a `GaussianLikelihood`.

    Their Gauss-Newton matrix is the Fisher information of the weights, which does not
    depend on whether the network ends before or after its softmax or sigmoid.

    Args:
        loss: The likelihood.
        outputs: Of the network, `[batch, C]`.
    """
    if isinstance(loss, GaussianLikelihood) or loss.from_logits:
        return outputs
    # As Keras clips them.
    least = keras.backend.epsilon()
    probabilities = tf.clip_by_value(outputs, least, 1.0 - least)
    logits = tf.math.log(probabilities)
    if isinstance(loss, keras.losses.BinaryCrossentropy):
        return logits - tf.math.log1p(-probabilities)
    return logits


def curvature_root(loss, parameters):
    """R with R·Rᵀ = −∂² log p(y|f)/∂f², the same for all y, `[batch, C, C]`.

    Args:
        loss: The likelihood.
        parameters: f, its natural parameters, `[batch, C]`.
    """
    if isinstance(loss, GaussianLikelihood):
        root = tf.sqrt(mean_value(loss.precision, parameters.dtype))
        return root * tf.linalg.diag(tf.ones_like(parameters))
    if isinstance(loss, keras.losses.BinaryCrossentropy):
        log_variance = tf.math.log_sigmoid(parameters) + tf.math.log_sigmoid(
            -parameters
        )
        return tf.exp(0.5 * log_variance)[..., None]
    # diag(√p) − p √pᵀ, whose square is diag(p) − p pᵀ.
    logs = tf.nn.log_softmax(parameters)
    roots = tf.exp(0.5 * logs)
    return tf.linalg.diag(roots) - tf.exp(logs)[..., None] * roots[:, None]
