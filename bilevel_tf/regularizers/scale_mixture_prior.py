"""A mixture of two normals as a prior on weights."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.regularizers.weight_prior import (
    WeightPrior,
    config_entry,
    in_force,
    inside,
    positive_parameter,
)

tfd = tfp.distributions


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
        self.share = inside(share, "share", 0.0, 1.0)
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


def _broadcast(first, second):
    shape = tf.broadcast_static_shape(first.shape, second.shape)
    return [tf.broadcast_to(tensor, shape) for tensor in (first, second)]
