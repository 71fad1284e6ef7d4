"""What the priors on hyperparameters add to the outer objective."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.hyperparameters.layout import Layout

tfd = tfp.distributions


class Priors:
    """The priors p(λ) of a space: Gaussian for some entries, flat for the others.

    Args:
        layout: The `Layout` of the space.
    """

    def __init__(self, layout: Layout):
        scales = layout.scales
        given = {n: s.prior for n, s in scales.items() if s.prior is not None}
        self._where = np.zeros(layout.size, bool)
        self._scales = np.ones(layout.size)
        self._centers = np.zeros(layout.size)
        if not given:
            return
        for name, prior in given.items():
            self._where[layout.slices[name]] = True
            self._scales[layout.slices[name]] = prior.scale
        values = {n: p.center_of(scales[n].shape) for n, p in given.items()}
        start = tf.zeros([layout.size], "float64")
        self._centers = layout.unconstrain(values, start).numpy()
        layout.check_finite(self._centers, values)

    def complexity(self, unconstrained: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        """Sum over all entries of −H[p(ε|σ)], or of the divergence from a prior.

        Args:
            unconstrained: λ, `[h]`.
            sigma: σ, `[h]`.

        Returns:
            A scalar.
        """
        posterior = tfd.Normal(unconstrained, sigma)
        flat = -posterior.entropy()
        if not np.any(self._where):
            return tf.reduce_sum(flat)
        dtype = flat.dtype
        prior = tfd.Normal(
            tf.constant(self._centers, dtype), tf.constant(self._scales, dtype)
        )
        divergence = tfd.kl_divergence(posterior, prior)
        return tf.reduce_sum(tf.where(self._where, divergence, flat))
