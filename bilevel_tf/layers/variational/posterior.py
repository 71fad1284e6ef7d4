"""The distribution of a weight after the data: a normal for each of its entries."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.regularizers.weight_prior import WeightPrior

tfd = tfp.distributions


@dataclasses.dataclass(frozen=True)
class Posterior:
    """q(w) = N(μ, σ²), independent over the entries of one weight; σ = exp(ρ).

    The exponential takes one pass over the weights, a softplus several, and log σ,
    which the divergence needs, is ρ itself.

    Attributes:
        mean: The variable μ.
        raw_scale: The variable ρ, of the same shape.
        prior: The `WeightPrior` of w.
    """

    mean: keras.Variable
    raw_scale: keras.Variable
    prior: WeightPrior

    def distribution(self):
        """A `tfd.Normal`."""
        return tfd.Normal(tf.convert_to_tensor(self.mean), self.scale())

    def scale(self):
        """σ."""
        return tf.exp(tf.convert_to_tensor(self.raw_scale))


def raw_scale(scale):
    """ρ of a σ."""
    return np.log(scale)
