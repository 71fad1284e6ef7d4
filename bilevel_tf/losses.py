"""Losses whose own parameters may be tuned."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.regularizers.norms import factor_value
from bilevel_tf.regularizers.weight_prior import config_entry, positive_parameter

__all__ = ["GaussianLikelihood"]

tfd = tfp.distributions


@keras.saving.register_keras_serializable("bilevel_tf")
class GaussianLikelihood(keras.losses.Loss):
    """−log N(y; f(x), λ⁻¹ I): squared errors with a noise precision that can be tuned.

    ½ Σ (λ (y − f)² − log λ + log 2π) per example, summed over the last axis.

    Args:
        precision: λ, a positive number or a scalar hyperparameter. Defaults to 1.
        reduction: As in Keras.
        name: As in Keras.
        dtype: As in Keras.

    Raises:
        ValueError: If `precision` is not, or might become not, positive, or is
            vector-valued.

    Example:

    >>> model.compile(loss=bt.losses.GaussianLikelihood(hp["noise_precision"]), ...)
    """

    def __init__(
        self,
        precision=1.0,
        reduction="sum_over_batch_size",
        name="gaussian_likelihood",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.precision = positive_parameter(precision, "precision")
        shape = getattr(getattr(self.precision, "scale", None), "shape", ())
        if shape != ():
            raise ValueError(
                "`precision` must be a scalar hyperparameter. Received: "
                f"'{self.precision.name}' of shape {shape}"
            )

    def call(self, y_true, y_pred):
        """The negative log likelihood of every example."""
        y_pred = tf.convert_to_tensor(y_pred)
        y_true = tf.cast(y_true, y_pred.dtype)
        if y_true.shape.rank == y_pred.shape.rank - 1 and y_pred.shape[-1] == 1:
            y_true = y_true[..., None]
        if not y_true.shape[-1:].is_compatible_with(y_pred.shape[-1:]):
            raise ValueError(
                "The targets of GaussianLikelihood must be shaped as the outputs are. "
                f"Received: targets of shape {y_true.shape} and outputs of shape "
                f"{y_pred.shape}"
            )
        precision = factor_value(self.precision, y_pred.dtype)
        if precision.shape.rank:
            # During a perturbed pass every example has its own.
            precision = tf.reshape(precision, [-1] + [1] * (y_pred.shape.rank - 1))
        noise = tfd.Normal(y_pred, tf.math.rsqrt(precision))
        return -tf.reduce_sum(noise.log_prob(y_true), -1)

    def get_config(self):
        """Arguments to make this loss again."""
        return {**super().get_config(), "precision": config_entry(self.precision)}
