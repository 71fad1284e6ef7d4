"""Priors on weights, whose parameters may be hyperparameters."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.regularizers.norms import factor_value

tfd = tfp.distributions


class WeightPrior(keras.regularizers.Regularizer):
    """p(w), independent over the entries of a weight.

    As a Keras regularizer it adds −log p(w) / N to the training loss, up to what does
    not depend on w: with a loss that is the mean negative log likelihood of N examples,
    training then finds the most probable weights. Variational layers and
    `LaplaceEvidence` take it as their prior.

    Attributes:
        data_size: N.
        needs_draw: Whether `kl_divergence` is estimated at a draw.
    """

    needs_draw = True

    def __init__(self, data_size):
        whole = isinstance(data_size, (int, np.integer))
        if isinstance(data_size, bool) or not whole or data_size < 1:
            raise ValueError(
                "`data_size` must be the number of training examples, a positive whole "
                f"number. Received: data_size={data_size!r}"
            )
        self.data_size = int(data_size)

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        return -self.log_kernel(x) / tf.cast(self.data_size, x.dtype)

    def log_kernel(self, weight):
        """log p(w) up to what does not depend on w, a scalar."""
        return self.log_prob(weight)

    def log_prob(self, weight):
        """log p(w), summed over the entries, a scalar."""
        weight = tf.convert_to_tensor(weight)
        return tf.reduce_sum(self.distribution(weight.dtype).log_prob(weight))

    def distribution(self, dtype):
        """The TFP distribution of an entry; its shape broadcasts to the weight's."""
        raise NotImplementedError

    def kl_divergence(self, posterior, draw, log_scale=None):
        """KL(q(w) ‖ p(w)), summed over the entries, a scalar.

        Args:
            posterior: q, a `tfd.Normal` shaped as the weight.
            draw: A draw of q, for priors without a closed form; those estimate the
                divergence by log q − log p there.
            log_scale: log σ of q, where it is known without a pass over the weights.
        """
        raise NotImplementedError


@tf.custom_gradient
def half_squares(weight):
    """½ Σ w², a scalar; the derivative is w.

    A product with ones: under XLA on the CPU several times as fast as a sum of squares,
    which it adds up one by one. TensorFlow would make an outer product its gradient.
    """
    width = weight.shape[-1] if weight.shape.rank else 1
    squares = tf.reshape(tf.square(weight), [-1, width])
    ones = tf.ones([width], squares.dtype)
    return 0.5 * tf.reduce_sum(tf.linalg.matvec(squares, ones)), lambda g: g * weight


def in_force(parameter, dtype):
    """A number's or hyperparameter's value; the mean over a perturbed pass."""
    value = factor_value(parameter, dtype)
    if isinstance(parameter, Hyperparameter) and parameter.is_perturbed:
        return tf.reduce_mean(value, 0)
    return value


def parameter(value, name):
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, (Hyperparameter, int, float, np.number)):
        return value if isinstance(value, Hyperparameter) else float(value)
    raise ValueError(
        f"`{name}` must be a number or a hyperparameter such as space['{name}']. "
        f"Received: {name}={value!r}"
    )


def positive_parameter(value, name):
    """A positive number, or a hyperparameter that cannot become anything else."""
    return inside(value, name, 0.0, float("inf"))


def check_shape(prior, shape, name, layer):
    """Raise a `ValueError` where a prior's parameter does not fit a weight.

    Args:
        prior: The `WeightPrior`.
        shape: The weight's.
        name: Of the argument that the prior was given as.
        layer: The layer's name.
    """
    shape = tuple(shape)
    for parameter in vars(prior).values():
        tuned = isinstance(parameter, Hyperparameter)
        if tuned and not parameter.broadcasts_to(shape):
            raise ValueError(
                f"Hyperparameter '{parameter.name}' of shape {parameter.scale.shape} "
                f"in the `{name}` of '{layer}' does not fit a weight of shape {shape}: "
                f"give it shape (), {shape}, or one that broadcasts to that. For a "
                "bias that needs another one than the kernel, give `bias_prior`."
            )


def inside(value, name, low, high):
    """The parameter, unless it is not, or can become not, between the ends."""
    found = parameter(value, name)
    if isinstance(found, Hyperparameter):
        # A scale never takes its own ends.
        least, most = found.scale.ends
        fits = low <= least and most <= high
    else:
        fits = low < found < high
    if not fits:
        raise ValueError(
            f"`{name}` must be above {low} and below {high}, and so must all values "
            f"be that a hyperparameter can take. Received: {name}={value!r}"
        )
    return found


def config_entry(parameter):
    """A number or hyperparameter for `get_config`."""
    if isinstance(parameter, Hyperparameter):
        return keras.saving.serialize_keras_object(parameter)
    return parameter
