"""Priors on weights, whose parameters may be hyperparameters."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.layers.regularizers import factor_value

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


@keras.saving.register_keras_serializable("bilevel_tf")
class NormalPrior(WeightPrior):
    """w ~ N(m, A⁻¹), A diagonal.

    Not to be confused with `GaussianPrior`, which is one on a hyperparameter.

    Args:
        precision: A, a positive number, the same for all weights, or a hyperparameter.
            A vector-valued hyperparameter has a precision per weight, or per unit or
            input (automatic relevance determination) where its shape broadcasts to the
            weight's. Defaults to 1.
        mean: m, a number or hyperparameter, shaped likewise. Defaults to 0.
        data_size: N, the number of training examples.

    Raises:
        ValueError: If the precision is not, or might become not, positive and finite,
            the mean not finite, or `data_size` not a positive whole number.

    Example:

    >>> prior = bt.NormalPrior(hp["precision"], data_size=len(x_train))
    >>> bt.HyperDense(10, kernel_regularizer=prior)

    Reference:
        MacKay, "Bayesian interpolation", 1992; the learned mean: Graves, "Practical
        variational inference for neural networks", 2011.
    """

    needs_draw = False

    def __init__(self, precision=1.0, mean=0.0, *, data_size):
        super().__init__(data_size)
        self.precision = positive_parameter(precision, "precision")
        self.mean = _parameter(mean, "mean")
        if not isinstance(self.mean, Hyperparameter) and not np.isfinite(self.mean):
            raise ValueError(f"`mean` must be finite. Received: mean={mean!r}")

    def distribution(self, dtype):
        """A `tfd.Normal`."""
        precision = in_force(self.precision, dtype)
        return tfd.Normal(in_force(self.mean, dtype), tf.math.rsqrt(precision))

    def log_kernel(self, weight):
        """−½ Σ A (w − m)²."""
        weight = tf.convert_to_tensor(weight)
        precision = in_force(self.precision, weight.dtype)
        distance = weight - in_force(self.mean, weight.dtype)
        # A scalar precision need not be multiplied with every term.
        if precision.shape.rank == 0:
            return -precision * half_squares(distance)
        return -0.5 * tf.reduce_sum(precision * tf.square(distance))

    def kl_divergence(self, posterior, draw=None, log_scale=None):
        """In closed form; see `WeightPrior.kl_divergence`."""
        precision = in_force(self.precision, posterior.dtype)
        if precision.shape.rank:
            prior = self.distribution(posterior.dtype)
            return tf.reduce_sum(tfd.kl_divergence(posterior, prior))
        # With one precision a fourth of the passes over the weights that TFP makes:
        # ½ A Σ (σ² + (μ − m)²) − Σ log σ − ½ u (1 + log A).
        distance = posterior.loc
        if self.mean != 0.0:
            distance -= in_force(self.mean, posterior.dtype)
        halves = half_squares(posterior.scale) + half_squares(distance)
        size = tf.cast(tf.size(distance), precision.dtype)
        constant = 0.5 * size * (1.0 + tf.math.log(precision))
        if log_scale is None:
            log_scale = tf.math.log(posterior.scale)
        return precision * halves - tf.reduce_sum(log_scale) - constant

    def get_config(self):
        """Arguments to make this prior again."""
        return {
            "precision": config_entry(self.precision),
            "mean": config_entry(self.mean),
            "data_size": self.data_size,
        }


@keras.saving.register_keras_serializable("bilevel_tf")
class ScaleMixturePrior(WeightPrior):
    """w ~ π N(0, A₁⁻¹) + (1 − π) N(0, A₂⁻¹): many small weights, a few large ones.

    Its KL divergence has no closed form: variational layers estimate it at one draw,
    log q(w) − log p(w), which has the right mean and adds noise to training.

    Args:
        precisions: A₁ and A₂, positive numbers or hyperparameters, shaped as that of
            `NormalPrior`. Defaults to 1 and 400, the standard deviations 1 and 0.05.
        share: π, a number above 0 and below 1, or a scalar hyperparameter. Defaults to
            a half.
        data_size: N, the number of training examples.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Blundell et al., "Weight uncertainty in neural networks", 2015, Eq. 7.
    """

    def __init__(self, precisions=(1.0, 400.0), share=0.5, *, data_size):
        super().__init__(data_size)
        if not isinstance(precisions, (list, tuple)) or len(precisions) != 2:
            raise ValueError(
                f"`precisions` must be two of them. Received: precisions={precisions!r}"
            )
        # Not in a list: the space is bound to what attributes refer to.
        self.first_precision, self.second_precision = [
            positive_parameter(precision, "precisions") for precision in precisions
        ]
        self.share = _inside(share, "share", 0.0, 1.0)
        if isinstance(self.share, Hyperparameter) and self.share.scale.shape != ():
            raise ValueError(
                "`share` must be a number or a scalar hyperparameter. Received: "
                f"'{self.share.name}' of shape {self.share.scale.shape}"
            )

    def distribution(self, dtype):
        """A `tfd.MixtureSameFamily` of two normals."""
        first = in_force(self.first_precision, dtype)
        second = in_force(self.second_precision, dtype)
        precisions = tf.stack(_broadcast(first, second), -1)
        share = in_force(self.share, dtype)
        return tfd.MixtureSameFamily(
            tfd.Categorical(probs=tf.stack([share, 1.0 - share])),
            tfd.Normal(tf.zeros([], dtype), tf.math.rsqrt(precisions)),
        )

    def kl_divergence(self, posterior, draw, log_scale=None):
        """Estimated at one draw; see `WeightPrior.kl_divergence`."""
        return tf.reduce_sum(posterior.log_prob(draw)) - self.log_prob(draw)

    def get_config(self):
        """Arguments to make this prior again."""
        return {
            "precisions": [
                config_entry(self.first_precision),
                config_entry(self.second_precision),
            ],
            "share": config_entry(self.share),
            "data_size": self.data_size,
        }


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


def _broadcast(first, second):
    shape = tf.broadcast_static_shape(first.shape, second.shape)
    return [tf.broadcast_to(tensor, shape) for tensor in (first, second)]


def _parameter(value, name):
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
    return _inside(value, name, 0.0, float("inf"))


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


def _inside(value, name, low, high):
    """The parameter, unless it is not, or can become not, between the ends."""
    parameter = _parameter(value, name)
    if isinstance(parameter, Hyperparameter):
        # A scale never takes its own ends.
        least, most = parameter.scale.ends
        inside = low <= least and most <= high
    else:
        inside = low < parameter < high
    if not inside:
        raise ValueError(
            f"`{name}` must be above {low} and below {high}, and so must all values "
            f"be that a hyperparameter can take. Received: {name}={value!r}"
        )
    return parameter


def config_entry(parameter):
    """A number or hyperparameter for `get_config`."""
    if isinstance(parameter, Hyperparameter):
        return keras.saving.serialize_keras_object(parameter)
    return parameter
