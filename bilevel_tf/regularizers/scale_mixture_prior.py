"""A mixture of two normals as a prior on weights."""

from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.hyperparameters.configs import config_of
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.tunable import Tunable
from bilevel_tf.hyperparameters.values import mean_value
from bilevel_tf.regularizers.weight_prior import WeightPrior

tfd = tfp.distributions

_PRECISION = Tunable(low=0.0, open_low=True, vector=True)


@keras.saving.register_keras_serializable("bilevel_tf")
class ScaleMixturePrior(WeightPrior):
    """A mixture of two normals: w ~ π N(0, A₁⁻¹) + (1 − π) N(0, A₂⁻¹).

    It expects many small weights and a few large ones. Its KL divergence has no closed
    form: variational layers estimate it at one draw by log q(w) − log p(w), which has
    the right mean and adds noise to training.

    Args:
        precisions: A₁ and A₂, a pair of positive numbers or of hyperparameters that
            stay positive. A vector-valued hyperparameter has a precision per weight,
            or, if its shape broadcasts to the weight's, per unit or input. Defaults to
            (1, 400), which are standard deviations of 1 and 0.05.
        share: π, a number above 0 and below 1, or a scalar hyperparameter that stays
            there. Defaults to 0.5.
        data_size: N, the number of training examples, a positive whole number.

    Raises:
        ValueError: If an argument is out of its range, or a hyperparameter can leave
            it, `precisions` are not two, or `share` is vector-valued.

    Call:
        `prior(w)`, with a weight of any shape, gives a scalar.

    Example:

    >>> hp = bt.HyperparameterSpace(share=bt.Uniform(0.0, 1.0, initial=0.25))
    >>> prior = bt.regularizers.ScaleMixturePrior(share=hp["share"], data_size=1000)
    >>> layer = bt.VariationalDense(10, prior=prior)

    Reference:
        Blundell et al., "Weight uncertainty in neural networks", 2015, Eq. 7.
    """

    share = Tunable(low=0.0, high=1.0, open_low=True, open_high=True)

    def __init__(
        self,
        precisions: tuple[float | Hyperparameter, float | Hyperparameter] = (
            1.0,
            400.0,
        ),
        share: float | Hyperparameter = 0.5,
        *,
        data_size: int,
    ):
        super().__init__(data_size)
        if not isinstance(precisions, (list, tuple)) or len(precisions) != 2:
            raise ValueError(
                "`precisions` of ScaleMixturePrior must be two: a pair of positive "
                f"numbers or hyperparameters. Received: precisions={precisions!r}"
            )
        self.precisions = [_PRECISION.check(p, "precisions", self) for p in precisions]
        self.share = share

    def distribution(self, dtype: Any) -> tfd.MixtureSameFamily:
        """A `tfd.MixtureSameFamily` of two normals."""
        precisions = [mean_value(precision, dtype) for precision in self.precisions]
        precisions = tf.stack(_broadcast(*precisions), -1)
        share = mean_value(self.share, dtype)
        return tfd.MixtureSameFamily(
            tfd.Categorical(probs=tf.stack([share, 1.0 - share])),
            tfd.Normal(tf.zeros([], dtype), tf.math.rsqrt(precisions)),
        )

    def kl_divergence(
        self,
        posterior: tfd.Normal,
        draw: tf.Tensor,
        log_scale: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Estimated at one draw; see `WeightPrior.kl_divergence`."""
        return tf.reduce_sum(posterior.log_prob(draw)) - self.log_prob(draw)

    def get_config(self) -> dict[str, Any]:
        """Arguments to make this prior again."""
        return {
            "precisions": config_of(self.precisions),
            "share": config_of(self.share),
            "data_size": self.data_size,
        }


def _broadcast(first, second):
    shape = tf.broadcast_static_shape(first.shape, second.shape)
    return [tf.broadcast_to(tensor, shape) for tensor in (first, second)]
