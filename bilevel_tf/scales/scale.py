"""What a scale is: the range of a hyperparameter, and how it is made free."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.typing import ArrayLike

from bilevel_tf import _keras
from bilevel_tf._arguments import check_positive, show
from bilevel_tf.scales.hyperprior import GaussianHyperprior
from bilevel_tf.scales.numbers import (
    check_magnitude,
    held_dtype,
    loading,
    pack_array,
    show_bad,
    to_array,
)


class Scale:
    """The range of a hyperparameter, its initial value and its perturbation.

    A hyperparameter has two forms. Users read and write its *value*, for example a
    dropout rate between 0 and 1. Methods move its *unconstrained form* λ, which may be
    any real number or vector: gradient steps and Gaussian perturbations never leave
    the range then. A scale is the map between the two (appendix F of the Δ-STN paper,
    Bae & Grosse 2020).

    This is a base class. To make a scale of your own, write a subclass that defines

    - `bijector(dtype)`: a TFP bijector whose `forward` maps the unconstrained form to
      the value. Both may have leading batch axes. Or override `constrain` and
      `unconstrain` themselves, if the map is not a bijector.
    - `allows(value)`: whether a NumPy value lies in the range, entry by entry or for
      the whole value. NaN and infinities are refused before it is asked.
    - `describe()`: the range in words that complete "must be …".
    - `ends`: the lower and the upper end of every entry, infinite if there is none.
      Layers ask for them to know that a hyperparameter cannot leave the range that
      they accept. If the value may be the end itself, `allows(end)` is true.

    and, if the scale differs from a smooth scalar in one of these ways, also

    - `unconstrained_shape`: the shape of the unconstrained form. Defaults to the
      value's, `shape`.
    - `differentiable`: whether the value has a derivative with respect to λ. Defaults
      to `True`. If it is `False`, only methods that fit a best response tune the
      hyperparameter; all others refuse it.
    - `python_type`: the type of the entries that users read. Defaults to `float`.
    - `stacked`: the names of the attributes that hold one number each and on which,
      entry by entry, the map depends, and on nothing else. A space then maps all
      scales of the class together, with arrays in these attributes. Set it in the class
      itself; it is not inherited. Defaults to `None`: only equal scales are mapped
      together.

    If the constructor takes more arguments than this one, pass `initial`,
    `perturbation_scale`, `learn_perturbation_scale` and `prior` on to
    `super().__init__` *after* setting your own, since it checks `initial` by `allows`;
    and add yours in `get_config`. Register the class with
    `keras.saving.register_keras_serializable`, so that models that use it can be saved.

    Args:
        initial: Initial value, in the range: a number, or an array-like for a
            vector-valued hyperparameter. Its shape is the shape of the value.
        perturbation_scale: Initial standard deviation σ of the perturbation of λ, on
            the unconstrained scale, positive. Defaults to 1, as in the Δ-STN paper.
            Only methods that perturb hyperparameters use it.
        learn_perturbation_scale: Whether σ is tuned together with λ. Defaults to
            `True`.
        prior: `None` for a flat prior p(λ), which gives the entropy term of Eq. 2.7 of
            the Δ-STN paper; or a `GaussianHyperprior`, whose KL divergence takes the
            place of that term. Defaults to `None`.

    Raises:
        ValueError: If `initial` is not in the range, `perturbation_scale` is not
            positive and finite, or a number cannot be held in the dtype of
            hyperparameters: they are at least "float32", and "float64" under such a
            dtype policy of Keras.
        TypeError: If `prior` is not a `GaussianHyperprior`, or
            `learn_perturbation_scale` is not a Boolean.

    Example:

    A correlation, between −1 and 1, through a hyperbolic tangent:

    >>> import tensorflow_probability as tfp
    >>> @keras.saving.register_keras_serializable("my_package")
    ... class Correlation(bt.scales.Scale):
    ...     ends = (-1.0, 1.0)
    ...
    ...     def bijector(self, dtype):
    ...         return tfp.bijectors.Tanh()
    ...
    ...     def allows(self, value):
    ...         return (value > -1) & (value < 1)
    ...
    ...     def describe(self):
    ...         return "strictly between -1 and 1"
    >>> hp = bt.HyperparameterSpace(correlation=Correlation(initial=0.5))
    >>> round(hp.values()["correlation"], 6)
    0.5
    >>> Correlation(initial=2.0)
    Traceback (most recent call last):
        ...
    ValueError: `initial` must be strictly between -1 and 1. Received: initial=2.0

    Weights of k components, which are positive and sum to one. Their unconstrained
    form has an entry less:

    >>> @keras.saving.register_keras_serializable("my_package")
    ... class Simplex(bt.scales.Scale):
    ...     ends = (0.0, 1.0)
    ...
    ...     @property
    ...     def unconstrained_shape(self):
    ...         return (self.shape[0] - 1,)
    ...
    ...     def constrain(self, unconstrained):
    ...         last = tf.zeros_like(unconstrained[..., :1])
    ...         return tf.nn.softmax(tf.concat([unconstrained, last], -1))
    ...
    ...     def unconstrain(self, value):
    ...         return tf.math.log(value[..., :-1] / value[..., -1:])
    ...
    ...     def allows(self, value):
    ...         return np.all(value > 0) and abs(np.sum(value) - 1) < 1e-6
    ...
    ...     def describe(self):
    ...         return "positive, with entries that sum to 1"
    >>> hp = bt.HyperparameterSpace(shares=Simplex([0.2, 0.3, 0.5]))
    >>> hp.values()["shares"].round(6), hp.size
    (array([0.2, 0.3, 0.5]), 2)
    """

    differentiable: bool = True
    python_type: type = float
    stacked: tuple[str, ...] | None = None

    def __init__(
        self,
        initial: ArrayLike,
        *,
        perturbation_scale: float = 1.0,
        learn_perturbation_scale: bool = True,
        prior: GaussianHyperprior | None = None,
    ):
        self.initial = to_array(initial, "initial")
        self.perturbation_scale = check_positive(
            perturbation_scale, "perturbation_scale"
        )
        if not isinstance(learn_perturbation_scale, (bool, np.bool_)):
            raise TypeError(
                "`learn_perturbation_scale` must be True or False. Received: "
                f"learn_perturbation_scale={show(learn_perturbation_scale)}"
            )
        self.learn_perturbation_scale = bool(learn_perturbation_scale)
        if isinstance(prior, dict):
            prior = keras.saving.deserialize_keras_object(prior)
        self.prior = prior
        self._check()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value: `()` for a scalar."""
        return self.initial.shape

    @property
    def unconstrained_shape(self) -> tuple[int, ...]:
        """Shape of the unconstrained form."""
        return self.shape

    @property
    def size(self) -> int:
        """Number of entries of the unconstrained form."""
        return math.prod(self.unconstrained_shape)

    @property
    def ends(self) -> tuple[float, float]:
        """Lower and upper end of every entry; infinite if there is none."""
        raise NotImplementedError(f"{type(self).__name__} does not say its range.")

    def bijector(self, dtype: Any) -> tfp.bijectors.Bijector:
        """The TFP bijector from the unconstrained form to the value.

        Args:
            dtype: Dtype of the tensors that it will be applied to.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say its bijector.")

    def allows(self, value: np.ndarray) -> np.ndarray | bool:
        """Whether `value` is in the range, entry by entry or as a whole."""
        raise NotImplementedError(f"{type(self).__name__} does not say its range.")

    def describe(self) -> str:
        """The range in words that complete "must be …"."""
        raise NotImplementedError(f"{type(self).__name__} does not say its range.")

    def constrain(self, unconstrained: tf.Tensor) -> tf.Tensor:
        """The value of an unconstrained form, differentiable.

        Args:
            unconstrained: Tensor `[..., *unconstrained_shape]`.

        Returns:
            Tensor `[..., *shape]`.
        """
        unconstrained = tf.convert_to_tensor(unconstrained)
        bijector = self.bijector(unconstrained.dtype)
        return _keras.apply_bijector(bijector, unconstrained)

    def unconstrain(self, value: tf.Tensor) -> tf.Tensor:
        """The unconstrained form λ of a value; the inverse of `constrain`.

        Args:
            value: Tensor `[..., *shape]`.

        Returns:
            Tensor `[..., *unconstrained_shape]`.
        """
        value = tf.convert_to_tensor(value)
        bijector = self.bijector(value.dtype)
        return _keras.apply_bijector(bijector, value, inverse=True)

    def check_value(
        self, value: ArrayLike, argument: str, dtype: str | None = None
    ) -> np.ndarray:
        """Return `value` as an array if the hyperparameter can take it.

        Args:
            value: A number or array-like.
            argument: The name by which the error calls it.
            dtype: Name of the dtype in which λ is held. Defaults to `None`: that of
                Keras's dtype policy, but at least "float32".

        Raises:
            ValueError: If `value` has another shape than the initial value, is not
                in the range, or its λ cannot be held in that dtype.
        """
        array = to_array(value, argument)
        if array.shape != self.shape:
            raise ValueError(
                f"`{argument}` must have shape {self.shape}, as the initial value "
                f"has. Received: {argument}={show(array)} of shape {array.shape}"
            )
        good = np.isfinite(array)
        if np.all(good):
            good = np.asarray(self.allows(array))
        if not np.all(good):
            raise ValueError(
                f"`{argument}` must be {self.describe()}. "
                f"Received: {argument}={show_bad(array, ~good)}"
            )
        self.check_in_dtype(array, argument, dtype or held_dtype())
        return array

    def check_in_dtype(self, value: np.ndarray, argument: str, dtype: str) -> None:
        """Raise a `ValueError` if the λ of a value in the range does not fit a dtype.

        A scale that knows more of its values than that they must not overflow or
        underflow overrides this.

        Args:
            value: The value.
            argument: The name by which the error calls it.
            dtype: Name of the dtype in which λ is held.
        """
        check_magnitude(value, argument, dtype)

    def check_dtype(self, dtype: str) -> None:
        """Raise a `ValueError` if a number of this scale does not fit a dtype.

        A `HyperparameterSpace` calls this.

        Args:
            dtype: Name of the dtype in which λ and σ are held.
        """
        check_magnitude(self.perturbation_scale, "perturbation_scale", dtype)
        self.check_in_dtype(self.initial, "initial", dtype)
        if self.prior is not None:
            check_magnitude(self.prior.scale, "prior.scale", dtype)
            center = self.prior.center_of(self.shape)
            self.check_in_dtype(center, "prior.center", dtype)

    def _check(self):
        if self.initial.size == 0:
            raise ValueError("`initial` must not be empty. Received: initial=[]")
        self.check_value(self.initial, "initial", "float64")
        if self.prior is not None:
            if not isinstance(self.prior, GaussianHyperprior):
                raise TypeError(
                    "`prior` must be None or a bilevel_tf.scales.GaussianHyperprior. "
                    f"Received: prior={show(self.prior)}"
                )
            center = self.prior.center_of(self.shape)
            self.check_value(center, "prior.center", "float64")
        self.check_dtype(held_dtype())

    def get_config(self) -> dict[str, Any]:
        """Arguments to make this scale again, as plain Python values."""
        prior = self.prior and keras.saving.serialize_keras_object(self.prior)
        return {
            "initial": pack_array(self.initial),
            "perturbation_scale": self.perturbation_scale,
            "learn_perturbation_scale": self.learn_perturbation_scale,
            "prior": prior,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Scale":
        """The inverse of `get_config`."""
        with loading():
            return cls(**config)

    def __repr__(self):
        names = [*(self.stacked or ()), "initial"]
        shown = ", ".join(f"{name}={show(getattr(self, name))}" for name in names)
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()
