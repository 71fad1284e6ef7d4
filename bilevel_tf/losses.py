"""Losses whose own parameters may be tuned."""

from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.hyperparameters.configs import config_of
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.tunable import Tunable
from bilevel_tf.hyperparameters.values import value_for

__all__ = ["GaussianLikelihood", "WeightedLoss"]

tfd = tfp.distributions


@keras.saving.register_keras_serializable("bilevel_tf")
class GaussianLikelihood(keras.losses.Loss):
    """−log N(y; f(x), λ⁻¹ I): squared errors with a noise precision that can be tuned.

    The loss of an example is ½ Σ (λ (y − f)² − log λ + log 2π), summed over the last
    axis.

    Args:
        precision: λ, the inverse variance of the noise: a positive number, or a scalar
            hyperparameter that stays positive. Defaults to 1.
        reduction: How the losses of the examples are combined: "sum_over_batch_size",
            "mean", "mean_with_sample_weight", "sum", "none" or `None`, as in Keras.
            Defaults to "sum_over_batch_size".
        name: Name of the loss. Defaults to "gaussian_likelihood".
        dtype: Dtype or dtype policy of the computation. Defaults to Keras's.

    Raises:
        ValueError: If `precision` is not positive and finite, can become so, or is
            vector-valued. In a call, if the last axes of targets and outputs differ.

    Call:
        `loss(y_true, y_pred)`, both `[batch, ..., units]`; `y_true` may lack the last
        axis if `units` is 1. Gives a scalar, or `[batch, ...]` without reduction.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e4, initial=1.0))
    >>> loss = bt.losses.GaussianLikelihood(hp["precision"])
    >>> round(float(loss(np.zeros((4, 1)), np.ones((4, 1)))), 4)  # ½ (1 + log 2π)
    1.4189
    """

    precision = Tunable(low=0.0, open_low=True)

    def __init__(
        self,
        precision: float | Hyperparameter = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "gaussian_likelihood",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.precision = precision

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
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
        precision = value_for(self.precision, y_pred)
        noise = tfd.Normal(y_pred, tf.math.rsqrt(precision))
        return -tf.reduce_sum(noise.log_prob(y_true), -1)

    def get_config(self) -> dict[str, Any]:
        """Arguments to make this loss again."""
        return {**super().get_config(), "precision": config_of(self.precision)}


@keras.saving.register_keras_serializable("bilevel_tf")
class WeightedLoss(keras.losses.Loss):
    """A loss times a weight that can be tuned, such as that of one task of several.

    `loss_weights` of `compile` takes numbers alone. A weight in the training loss must
    not be judged by that same loss, which it lowers whatever the data say: give
    `compile` an `outer_loss` beside it.

    Args:
        loss: The loss of an output as Keras takes it: a name, a function of targets and
            outputs that returns a loss per example, or a `keras.losses.Loss`, of which
            the reduction is not used.
        weight: The factor: a number of at least 0, or a scalar hyperparameter that
            stays there. Defaults to 1.
        reduction: How the losses of the examples are combined: "sum_over_batch_size",
            "mean", "mean_with_sample_weight", "sum", "none" or `None`, as in Keras.
            Defaults to "sum_over_batch_size".
        name: Name of the loss. Defaults to "weighted_loss".
        dtype: Dtype or dtype policy of the computation. Defaults to Keras's.

    Raises:
        ValueError: If `loss` is unknown to Keras, or `weight` is negative, can become
            so, or is vector-valued.

    Call:
        `loss(y_true, y_pred)`, as the loss that is weighted. Gives a scalar, or a loss
        per example without reduction.

    Example:

    >>> hp = bt.HyperparameterSpace(depth=bt.LogUniform(1e-2, 1e2, initial=3.0))
    >>> loss = bt.losses.WeightedLoss("mse", hp["depth"])
    >>> round(float(loss(np.zeros((4, 1)), np.ones((4, 1)))), 4)
    3.0
    """

    weight = Tunable(low=0.0)

    def __init__(
        self,
        loss: Any,
        weight: float | Hyperparameter = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "weighted_loss",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.loss = keras.losses.get(loss)
        self.weight = weight

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """The weighted loss of every example."""
        own = isinstance(self.loss, keras.losses.Loss)
        losses = (self.loss.call if own else self.loss)(y_true, y_pred)
        return value_for(self.weight, losses) * losses

    @property
    def from_logits(self) -> bool:
        """Whether the loss that is weighted takes logits."""
        return getattr(self.loss, "from_logits", False)

    def get_config(self) -> dict[str, Any]:
        """Arguments to make this loss again."""
        return {
            **super().get_config(),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "weight": config_of(self.weight),
        }
