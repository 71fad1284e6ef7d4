"""Scales: the range in which a hyperparameter lives and how it is made free.

Every hyperparameter is kept as an unconstrained number λ, on which gradients and
perturbations act, and read on its own scale through a TFP bijector (appendix F of
the Δ-STN paper, Bae & Grosse 2020).
"""

import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf.scales.hyperprior import GaussianHyperprior

tfb = tfp.bijectors


class Scale:
    """A hyperparameter's scale, initial value and perturbation.

    Subclasses say which values are allowed and which bijector leads to them.

    Args:
        initial: Initial value on the constrained scale: a number, or an array-like
            for a vector-valued hyperparameter.
        perturbation_scale: Initial standard deviation σ of the perturbation of λ, on
            the unconstrained scale. Defaults to 1, as in the Δ-STN paper.
        learn_perturbation_scale: Whether σ is tuned together with λ. Defaults to
            `True`.
        prior: `None` for a flat prior (the entropy term of Eq. 2.7), or a
            `GaussianHyperprior` whose KL divergence takes the entropy term's place.

    Raises:
        ValueError: If `initial` is outside the range, or `perturbation_scale` is not
            positive and finite.
        TypeError: If `prior` is not a `GaussianHyperprior`.
    """

    dtype = "float64"

    def __init__(
        self,
        initial,
        *,
        perturbation_scale=1.0,
        learn_perturbation_scale=True,
        prior=None,
    ):
        self.initial = np.asarray(initial, self.dtype)
        self.perturbation_scale = float(perturbation_scale)
        self.learn_perturbation_scale = bool(learn_perturbation_scale)
        if isinstance(prior, dict):
            prior = keras.saving.deserialize_keras_object(prior)
        self.prior = prior
        self._check()

    @property
    def shape(self):
        """Shape of the value: `()` for a scalar."""
        return self.initial.shape

    @property
    def size(self):
        """How many unconstrained numbers the hyperparameter takes."""
        return int(self.initial.size)

    @property
    def ends(self):
        """Lower and upper end of the range; infinite where there is none."""
        raise NotImplementedError(f"{type(self).__name__} does not say its range.")

    def bijector(self, dtype):
        """The TFP bijector from the unconstrained to the constrained scale."""
        raise NotImplementedError(f"{type(self).__name__} does not say its bijector.")

    def allows(self, value):
        """Element-wise: whether `value` may be taken."""
        raise NotImplementedError(f"{type(self).__name__} does not say its range.")

    def describe(self):
        """The range in words, for error messages."""
        raise NotImplementedError(f"{type(self).__name__} does not say its range.")

    def constrain(self, unconstrained):
        """Value on the hyperparameter's own scale, differentiable."""
        unconstrained = tf.convert_to_tensor(unconstrained)
        return self.bijector(unconstrained.dtype).forward(unconstrained)

    def unconstrain(self, value):
        """λ of a constrained value; the inverse of `constrain`."""
        value = tf.convert_to_tensor(value)
        return self.bijector(value.dtype).inverse(value)

    def check_value(self, value, argument):
        """Return `value` as an array, or raise a `ValueError` naming `argument`."""
        value = np.asarray(value, self.dtype)
        if value.shape != self.shape:
            raise ValueError(
                f"`{argument}` must have shape {self.shape}, as the initial value "
                f"has. Received: {argument}={value} of shape {value.shape}"
            )
        if not np.all(np.isfinite(value)) or not np.all(self.allows(value)):
            raise ValueError(
                f"`{argument}` must be {self.describe()}. "
                f"Received: {argument}={value.tolist()}"
            )
        return value

    def _check(self):
        if self.initial.size == 0:
            raise ValueError("`initial` must not be empty. Received: initial=[]")
        self.check_value(self.initial, "initial")
        if not (self.perturbation_scale > 0 and math.isfinite(self.perturbation_scale)):
            raise ValueError(
                "`perturbation_scale` must be positive and finite. "
                f"Received: perturbation_scale={self.perturbation_scale}"
            )
        if self.prior is not None and not isinstance(self.prior, GaussianHyperprior):
            raise TypeError(
                "`prior` must be None or a bilevel_tf.scales.GaussianHyperprior. "
                f"Received: prior={self.prior!r}"
            )
        if self.prior is not None:
            self.check_value(np.full(self.shape, self.prior.center), "prior.center")

    def get_config(self):
        """Arguments to make this scale again, as plain Python values."""
        prior = self.prior and keras.saving.serialize_keras_object(self.prior)
        return {
            "initial": self.initial.tolist(),
            "perturbation_scale": self.perturbation_scale,
            "learn_perturbation_scale": self.learn_perturbation_scale,
            "prior": prior,
        }

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    __hash__ = None
