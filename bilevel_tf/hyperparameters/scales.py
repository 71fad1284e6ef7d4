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

from bilevel_tf.hyperparameters.prior import GaussianPrior

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
            `GaussianPrior` whose KL divergence takes the entropy term's place.

    Raises:
        ValueError: If `initial` is outside the range, or `perturbation_scale` is not
            positive and finite.
        TypeError: If `prior` is not a `GaussianPrior`.
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
        if self.prior is not None and not isinstance(self.prior, GaussianPrior):
            raise TypeError(
                "`prior` must be None or a bilevel_tf.GaussianPrior. "
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


class _Interval(Scale):
    """What `Uniform`, `LogUniform` and `Integer` share: two ends."""

    def __init__(self, low, high, initial, **kwargs):
        self.low = low
        self.high = high
        self._check_ends()
        super().__init__(initial, **kwargs)

    def _check_ends(self):
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(
                f"`low` and `high` must be finite. Received: low={self.low}, "
                f"high={self.high}"
            )
        if not self.low < self.high:
            raise ValueError(
                f"`low` must be less than `high`. Received: low={self.low}, "
                f"high={self.high}"
            )

    @property
    def ends(self):
        return self.low, self.high

    def allows(self, value):
        return (value > self.low) & (value < self.high)

    def describe(self):
        return f"strictly between low={self.low} and high={self.high}"

    def get_config(self):
        return {"low": self.low, "high": self.high, **super().get_config()}


@keras.saving.register_keras_serializable("bilevel_tf")
class Uniform(_Interval):
    """A number in an open interval; free through a stretched sigmoid.

    Args:
        low: Lower end, never reached.
        high: Upper end, never reached.
        initial: Initial value, strictly inside the interval. A list or array makes
            the hyperparameter vector-valued.
        **kwargs: See `Scale`.

    Example:

    >>> dropout = Uniform(0.0, 0.95, initial=0.05)
    """

    def bijector(self, dtype):
        return _stretched_sigmoid(self.low, self.high, dtype)


@keras.saving.register_keras_serializable("bilevel_tf")
class LogUniform(_Interval):
    """A positive number in an interval, uniform in its logarithm.

    Right for what varies over orders of magnitude, such as weight decay.

    Args:
        low: Lower end, positive, never reached.
        high: Upper end, never reached.
        initial: Initial value, strictly inside the interval.
        **kwargs: See `Scale`.
    """

    def _check_ends(self):
        super()._check_ends()
        if self.low <= 0:
            raise ValueError(
                f"`low` must be positive on a logarithmic scale. "
                f"Received: low={self.low}"
            )

    def bijector(self, dtype):
        logarithm = _stretched_sigmoid(math.log(self.low), math.log(self.high), dtype)
        return tfb.Chain([tfb.Exp(), logarithm])


@keras.saving.register_keras_serializable("bilevel_tf")
class Positive(Scale):
    """A number above zero without upper end; free through a softplus.

    Args:
        initial: Initial value, positive.
        **kwargs: See `Scale`.
    """

    def bijector(self, dtype):
        return tfb.Softplus()

    @property
    def ends(self):
        return 0.0, math.inf

    def allows(self, value):
        return value > 0

    def describe(self):
        return "positive"


@keras.saving.register_keras_serializable("bilevel_tf")
class Unconstrained(Scale):
    """Any finite number; its unconstrained value is itself.

    Args:
        initial: Initial value.
        **kwargs: See `Scale`.
    """

    def bijector(self, dtype):
        return tfb.Identity()

    @property
    def ends(self):
        return -math.inf, math.inf

    def allows(self, value):
        return np.isfinite(value)

    def describe(self):
        return "finite"


@keras.saving.register_keras_serializable("bilevel_tf")
class Integer(_Interval):
    """A whole number from `low` to `high`, both included, such as a count.

    λ goes through a sigmoid stretched over [low, high + 1) and is rounded down when
    it is read, as the cutout counts of the Δ-STN paper are. The value has no gradient
    of its own: it is tuned by best-response methods, which need none.

    Args:
        low: Least value.
        high: Greatest value.
        initial: Initial value; its λ sits in the middle of its unit interval.
        **kwargs: See `Scale`.
    """

    def bijector(self, dtype):
        return _stretched_sigmoid(self.low, self.high + 1, dtype)

    def constrain(self, unconstrained):
        # A sigmoid that saturates in floating point would reach high + 1.
        floored = tf.floor(super().constrain(unconstrained))
        return tf.minimum(floored, tf.cast(self.high, floored.dtype))

    def unconstrain(self, value):
        return super().unconstrain(value + 0.5)

    def allows(self, value):
        whole = value == np.floor(value)
        return whole & (value >= self.low) & (value <= self.high)

    def describe(self):
        return f"a whole number from low={self.low} to high={self.high}"

    def _check_ends(self):
        super()._check_ends()
        if self.low != int(self.low) or self.high != int(self.high):
            raise ValueError(
                f"`low` and `high` must be whole numbers. Received: low={self.low}, "
                f"high={self.high}"
            )


def _stretched_sigmoid(low, high, dtype):
    return tfb.Sigmoid(low=tf.constant(low, dtype), high=tf.constant(high, dtype))
