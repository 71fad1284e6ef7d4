"""Priors on weights, whose parameters may be hyperparameters."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.hyperparameters.references import references

tfd = tfp.distributions


class WeightPrior(keras.regularizers.Regularizer):
    """p(w), independent over the entries of a weight.

    As a Keras regularizer it adds −log p(w) / N to the training loss, without the terms
    that do not depend on w. With a loss that is the mean negative log likelihood of N
    examples, training then finds the most probable weights. Variational layers and
    `LaplaceEvidence` take it as their prior.

    This is a base class. A prior of your own defines `distribution` and
    `kl_divergence`, and makes its parameters tunable with `bilevel_tf.Tunable`.

    Args:
        data_size: N, the number of training examples, a positive whole number.

    Attributes:
        data_size: N.
        needs_draw: Whether `kl_divergence` is estimated at a draw of the posterior.
            Defaults to `True`.

    Raises:
        ValueError: If `data_size` is not a positive whole number.

    Call:
        `prior(w)`, with a weight of any shape, gives a scalar.

    Example:

    A Laplace prior, as a regularizer:

    >>> class LaplacePrior(bt.regularizers.WeightPrior):
    ...     scale = bt.Tunable(low=0.0, open_low=True)
    ...
    ...     def __init__(self, scale, *, data_size):
    ...         super().__init__(data_size)
    ...         self.scale = scale
    ...
    ...     def log_prob(self, weight):
    ...         scale = bt.hyperparameters.mean_value(self.scale)
    ...         return tf.reduce_sum(-tf.abs(weight) / scale - tf.math.log(2.0 * scale))
    >>> float(LaplacePrior(0.5, data_size=8)(tf.constant([0.5, -0.5])))
    0.25
    """

    needs_draw = True

    def __init__(self, data_size: int):
        whole = isinstance(data_size, (int, np.integer))
        if isinstance(data_size, bool) or not whole or data_size < 1:
            raise ValueError(
                "`data_size` must be the number of training examples, a positive whole "
                f"number. Received: data_size={data_size!r}"
            )
        self.data_size = int(data_size)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        return -self.log_kernel(x) / tf.cast(self.data_size, x.dtype)

    def log_kernel(self, weight: tf.Tensor) -> tf.Tensor:
        """log p(w) without the terms that do not depend on w, a scalar."""
        return self.log_prob(weight)

    def log_prob(self, weight: tf.Tensor) -> tf.Tensor:
        """log p(w), summed over the entries, a scalar."""
        weight = tf.convert_to_tensor(weight)
        return tf.reduce_sum(self.distribution(weight.dtype).log_prob(weight))

    def distribution(self, dtype: Any) -> tfd.Distribution:
        """The TFP distribution of an entry; its shape broadcasts to the weight's."""
        raise NotImplementedError(f"{type(self).__name__} has no distribution.")

    def kl_divergence(
        self,
        posterior: tfd.Normal,
        draw: tf.Tensor | None,
        log_scale: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """KL(q(w) ‖ p(w)), summed over the entries, a scalar.

        Args:
            posterior: q, a `tfd.Normal` of the weight's shape.
            draw: A draw of q, of the weight's shape. A prior without a closed form
                estimates the divergence by log q − log p there.
            log_scale: log σ of q, if it is known without a pass over the weights.
                Defaults to `None`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no KL divergence.")


@tf.custom_gradient
def half_squares(weight: tf.Tensor) -> tf.Tensor:
    """½ Σ w², a scalar; the derivative is w.

    It is computed as a product with ones: XLA on the CPU adds up a sum of squares one
    by one, which takes several times as long. The gradient is given here, because
    TensorFlow would compute it as an outer product.
    """
    width = weight.shape[-1] if weight.shape.rank else 1
    squares = tf.reshape(tf.square(weight), [-1, width])
    ones = tf.ones([width], squares.dtype)
    return 0.5 * tf.reduce_sum(tf.linalg.matvec(squares, ones)), lambda g: g * weight


def check_shape(
    prior: WeightPrior, shape: tuple[int, ...], name: str, layer: str
) -> None:
    """Raise a `ValueError` if a hyperparameter of a prior does not fit a weight.

    Args:
        prior: The prior.
        shape: Shape of the weight.
        name: Name of the argument that the prior was given as.
        layer: Name of the layer.
    """
    shape = tuple(shape)
    for parameter in references(prior):
        if not parameter.broadcasts_to(shape):
            raise ValueError(
                f"Hyperparameter '{parameter.name}' of shape {parameter.shape} "
                f"in the `{name}` of '{layer}' does not fit a weight of shape {shape}: "
                f"give it shape (), {shape}, or one that broadcasts to that. For a "
                "bias that needs another one than the kernel, give `bias_prior`."
            )
