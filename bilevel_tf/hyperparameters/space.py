"""The hyperparameters of a model, together."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from bilevel_tf import _random
from bilevel_tf._arguments import show
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.layout import Layout
from bilevel_tf.hyperparameters.naming import (
    check_known,
    check_scale,
    collect_scales,
)
from bilevel_tf.hyperparameters.priors import Priors
from bilevel_tf.scales.numbers import held_dtype, to_array
from bilevel_tf.scales.scale import Scale

# Up to here values are read one by one.
_FEW = 32


@keras.saving.register_keras_serializable("bilevel_tf")
class HyperparameterSpace(keras.layers.Layer):
    """Named, ordered hyperparameters λ and the perturbation p(ε|σ) around them.

    Users read and write values on the scale of each hyperparameter. The space keeps
    the unconstrained forms of all in one vector λ of length h, and beside it one
    standard deviation σ of the perturbation per entry. `space["name"]` is a reference
    to a hyperparameter, to be given to layers, regularizers, losses and optimizers.

    Args:
        hyperparameters: A dict, or a list of pairs, from names to scales. Needed for
            names that are no Python identifiers or are arguments here. Defaults to
            `None`, for no other hyperparameters than those in `named`.
        seed: Integer seed of the perturbations; `None` for a random one. Defaults to
            `None`.
        name: Name of the space. Defaults to one that Keras makes up.
        dtype: Dtype or dtype policy of λ and σ, which are held in "float32" if it is a
            smaller one. Defaults to Keras's.
        trainable: As for any Keras layer; the variables of a space are never
            trainable by Keras itself. Defaults to `True`.
        **named: More hyperparameters: `name=scale`.

    Raises:
        ValueError: If there is no hyperparameter, a name occurs twice, two would have
            one name in the logs of `fit`, or a number of a scale cannot be held in
            `dtype`.
        TypeError: If a name is not a non-empty string, something that is given as a
            hyperparameter is not a scale, or a scale is given as `seed`, `name`,
            `dtype` or `trainable`.

    Example:

    >>> hp = bt.HyperparameterSpace(
    ...     dropout=bt.Uniform(0.0, 0.9, initial=0.45),
    ...     holes=bt.Integer(0, 4, initial=1),
    ... )
    >>> hp.values()
    {'dropout': 0.45, 'holes': 1}
    >>> hp.assign({"holes": 3})
    >>> hp.values()["holes"]
    3
    >>> layer = bt.HyperDropout(hp["dropout"])
    """

    def __init__(
        self,
        hyperparameters: Mapping[str, Scale]
        | Iterable[tuple[str, Scale]]
        | None = None,
        *,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        trainable: bool = True,
        **named: Scale,
    ):
        options = {"seed": seed, "name": name, "dtype": dtype, "trainable": trainable}
        scales = collect_scales(hyperparameters, named, options)
        super().__init__(name=name, dtype=_hold(dtype), trainable=trainable)
        for key, scale in scales.items():
            check_scale(key, scale, self.dtype)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.scales = scales
        self._layout = Layout(scales)
        self._build_variables(self._layout.size)
        self.built = True

    def _build_variables(self, size):
        self.unconstrained = self.add_weight(
            name="unconstrained", shape=(size,), trainable=False, initializer="zeros"
        )
        self.raw_perturbation_scale = self.add_weight(
            name="raw_perturbation_scale",
            shape=(size,),
            trainable=False,
            initializer="zeros",
        )
        self._assign_checked({n: scale.initial for n, scale in self.scales.items()})
        scales = list(self.scales.values())
        sizes = [scale.size for scale in scales]
        sigma = np.repeat([scale.perturbation_scale for scale in scales], sizes)
        # softplus⁻¹, written so that small scales keep their digits
        self.raw_perturbation_scale.assign(sigma + np.log(-np.expm1(-sigma)))
        learned = np.repeat([s.learn_perturbation_scale for s in scales], sizes)
        self._learned_scale = learned.astype("float32")
        self._priors = Priors(self._layout)

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return list(self.scales)

    @property
    def size(self) -> int:
        """h, the length of the unconstrained vector."""
        return self.unconstrained.shape[0]

    @property
    def slices(self) -> dict[str, slice]:
        """The place of each hyperparameter in the unconstrained vector, by name."""
        return self._layout.slices

    def __getitem__(self, name: str) -> Hyperparameter:
        self.check_names([name])
        return Hyperparameter(name, self.scales[name], self)

    def __contains__(self, name: str) -> bool:
        return name in self.scales

    def __iter__(self) -> Iterator[str]:
        return iter(self.scales)

    def __len__(self) -> int:
        return len(self.scales)

    def __getattr__(self, name: str) -> Any:
        # Python asks only for what is no attribute.
        message = f"'{type(self).__name__}' object has no attribute '{name}'"
        if name in vars(self).get("scales", ()):
            message += (
                f". Hyperparameter '{name}' is space['{name}'], to be given to layers; "
                f"its present value is space.values()['{name}']"
            )
        raise AttributeError(message)

    def __setattr__(self, name: str, value: Any) -> None:
        ours = name in vars(self) or hasattr(type(self), name)
        if not ours and name in vars(self).get("scales", ()):
            raise AttributeError(
                f"Hyperparameter '{name}' is not set as an attribute. Use "
                f"space.assign({{'{name}': …}}). Received: {show(value)}"
            )
        super().__setattr__(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        raise TypeError(
            f"A value is set by space.assign({{{name!r}: …}}), and a hyperparameter is "
            f"given when the space is made. Received: {show(value)}"
        )

    def check_names(self, names: Iterable[str]) -> None:
        """Raise a `ValueError` that names what is not in the space."""
        check_known(names, self.scales)

    def constrain(self, unconstrained: tf.Tensor) -> dict[str, tf.Tensor]:
        """Values by name of unconstrained vectors.

        Args:
            unconstrained: Tensor `[..., h]`.

        Returns:
            Dict from names to tensors `[..., *shape]`.
        """
        return self._layout.constrain(tf.convert_to_tensor(unconstrained))

    def unconstrain(self, values: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Unconstrained vector of values by name; those left out are current.

        Args:
            values: Dict from names to tensors, arrays or numbers on the constrained
                scale, of the hyperparameter's shape.

        Returns:
            Tensor `[h]`, differentiable in the values.

        Raises:
            ValueError: If a name is unknown.
        """
        self.check_names(values)
        current = tf.convert_to_tensor(self.unconstrained)
        if not values:
            return current
        # Single precision would round what is next to an end to the end.
        values = {n: _to_double(value, n) for n, value in values.items()}
        return self._layout.unconstrain(values, current)

    def current(self) -> dict[str, tf.Tensor]:
        """Current values by name, as tensors that are differentiable in λ."""
        return self.constrain(tf.convert_to_tensor(self.unconstrained))

    def current_at_once(self) -> dict[str, tf.Tensor] | None:
        """`current()`, if there are so many values that a pass had better share it.

        A few values are better read one by one, by those layers that need them: the
        result is `None` then.
        """
        return self.current() if len(self.scales) > _FEW else None

    def current_value(self, name: str) -> tf.Tensor:
        """Current value of one hyperparameter, differentiable in λ."""
        return self._layout.constrain_one(
            tf.convert_to_tensor(self.unconstrained), name
        )

    def values(self) -> dict[str, int | float | np.ndarray]:
        """Current values by name: floats, ints, or arrays if vector-valued.

        They are computed in double precision, in which a value next to an end of its
        range is not yet that end, so that `assign` takes it back.
        """
        values = self._layout.read(tf.cast(self.unconstrained, tf.float64))
        return {n: _to_python(v, self.scales[n].python_type) for n, v in values.items()}

    def assign(self, values: Mapping[str, ArrayLike]) -> None:
        """Set hyperparameters.

        Args:
            values: Dict from names to numbers or arrays on the constrained scale, of
                the hyperparameter's shape. What is left out keeps its value.

        Raises:
            TypeError: If `values` is not a dict.
            ValueError: If a name is unknown, or a value is outside its range or has
                another shape. No hyperparameter changes then.
        """
        if not isinstance(values, Mapping):
            raise TypeError(
                "`values` must be a dict from names to values, such as "
                f"space.assign({{'{self.names[0]}': …}}). "
                f"Received: values={show(values)}"
            )
        self.check_names(values)
        self._assign_checked(
            {n: self.scales[n].check_value(v, n, self.dtype) for n, v in values.items()}
        )

    def _assign_checked(self, values):
        unconstrained = self.unconstrain(values).numpy()
        self._layout.check_finite(unconstrained, values)
        self.unconstrained.assign(unconstrained)

    def perturbation_scale(self) -> tf.Tensor:
        """σ, `[h]`, positive, differentiable in its raw value."""
        return tf.nn.softplus(tf.convert_to_tensor(self.raw_perturbation_scale))

    def perturbation_scales(self) -> dict[str, float | np.ndarray]:
        """σ by name, on the unconstrained scale, as floats or arrays.

        An array has the shape of the unconstrained form.
        """
        sigma, slices = np.asarray(self.perturbation_scale()), self.slices
        return {
            n: _to_python(sigma[slices[n]].reshape(s.unconstrained_shape))
            for n, s in self.scales.items()
        }

    def mask_fixed_scales(self, gradient: tf.Tensor) -> tf.Tensor:
        """A gradient with respect to σ, `[h]`, with zeros if σ is not to be learned."""
        return gradient * tf.cast(self._learned_scale, gradient.dtype)

    def sample(self, batch_size: int | tf.Tensor) -> tf.Tensor:
        """Draw ε ~ N(0, σ²), `[batch_size, h]`, differentiable in σ."""
        noise = _random.normal_rows(
            batch_size, self.size, self.dtype, self.seed_generator
        )
        return noise * self.perturbation_scale()

    def complexity(self) -> tf.Tensor:
        """A scalar, which the outer objective adds, multiplied by τ.

        The sum over all entries of the negative entropy −H[p(ε|σ)] of the perturbation
        (Eq. 2.7 of the Δ-STN paper). A hyperparameter with a prior contributes the KL
        divergence from it instead.
        """
        return self._priors.complexity(
            tf.convert_to_tensor(self.unconstrained), self.perturbation_scale()
        )

    def get_config(self) -> dict[str, Any]:
        """Names, scales and seed; values are variables and saved as such."""
        serialize = keras.saving.serialize_keras_object
        pairs = [[n, serialize(scale)] for n, scale in self.scales.items()]
        return {
            "hyperparameters": pairs,
            "seed": self.seed,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "HyperparameterSpace":
        """The inverse of `get_config`."""
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        pairs = [(n, deserialize(s)) for n, s in config.pop("hyperparameters")]
        return cls(pairs, **config)


def _hold(dtype):
    """The dtype or policy of a space: λ in half precision could not move."""
    policy = keras.dtype_policies.get(dtype)
    if not tf.as_dtype(policy.variable_dtype).is_floating:
        raise ValueError(
            "`dtype` of a HyperparameterSpace must be floating-point. "
            f"Received: dtype={policy.variable_dtype!r}"
        )
    if policy.variable_dtype == held_dtype(policy.variable_dtype):
        return policy
    return held_dtype(policy.variable_dtype)


def _to_double(value, name):
    """A value in double precision, on the host if it is there."""
    if tf.is_tensor(value) or isinstance(value, (keras.Variable, tf.Variable)):
        return keras.ops.convert_to_tensor(value, dtype="float64")
    return to_array(value, name)


def _to_python(value, python_type=float):
    return value.astype(python_type) if np.ndim(value) else python_type(value)
