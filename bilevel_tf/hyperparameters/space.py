"""The hyperparameters of a model, together."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.typing import ArrayLike

from bilevel_tf import _random
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.scales.scale import Scale

tfd = tfp.distributions


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
        dtype: Dtype or dtype policy of λ and σ. Defaults to Keras's.
        trainable: As for any Keras layer; the variables of a space are never
            trainable by Keras itself. Defaults to `True`.
        **named: More hyperparameters: `name=scale`.

    Raises:
        ValueError: If there is no hyperparameter, or a name occurs twice.
        TypeError: If a name is not a non-empty string, or something that is given as a
            hyperparameter is not a scale.

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
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.scales = _collect(hyperparameters, named)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._slices, start = {}, 0
        for key, scale in self.scales.items():
            self._slices[key] = slice(start, start + scale.size)
            start += scale.size
        self._build_variables(start)
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
        self.assign({n: scale.initial for n, scale in self.scales.items()})
        sigma = np.concatenate(
            [np.full(s.size, s.perturbation_scale) for s in self.scales.values()]
        )
        # softplus⁻¹, written so that small scales keep their digits
        self.raw_perturbation_scale.assign(sigma + np.log(-np.expm1(-sigma)))
        learned = [
            np.full(s.size, s.learn_perturbation_scale) for s in self.scales.values()
        ]
        self._learned_scale = np.concatenate(learned).astype("float32")

    @property
    def names(self) -> list[str]:
        """Names in order."""
        return list(self.scales)

    @property
    def size(self) -> int:
        """h, the length of the unconstrained vector."""
        return self.unconstrained.shape[0]

    def __getitem__(self, name: str) -> Hyperparameter:
        self.check_names([name])
        return Hyperparameter(name, self.scales[name], self)

    def __contains__(self, name: str) -> bool:
        return name in self.scales

    def check_names(self, names: Iterable[str]) -> None:
        """Raise a `ValueError` that names what is not in the space."""
        for name in names:
            if name not in self.scales:
                close = difflib.get_close_matches(str(name), self.names, n=1)
                hint = f" Did you mean '{close[0]}'?" if close else ""
                raise ValueError(
                    f"Unknown hyperparameter '{name}'.{hint} "
                    f"The space has: {', '.join(self.names)}"
                )

    def constrain(self, unconstrained: tf.Tensor) -> dict[str, tf.Tensor]:
        """Values by name of unconstrained vectors.

        Args:
            unconstrained: Tensor `[..., h]`.

        Returns:
            Dict from names to tensors `[..., *shape]`.
        """
        unconstrained = tf.convert_to_tensor(unconstrained)
        return {name: self._constrain(unconstrained, name) for name in self.scales}

    def _constrain(self, unconstrained, name):
        scale, batch = self.scales[name], unconstrained.shape[:-1]
        part = unconstrained[..., self._slices[name]]
        if batch.is_fully_defined():
            return scale.constrain(tf.reshape(part, batch + scale.unconstrained_shape))
        shape = [tf.shape(part)[:-1], list(scale.unconstrained_shape)]
        part = tf.reshape(part, tf.concat(shape, 0))
        part.set_shape(batch + scale.unconstrained_shape)
        return scale.constrain(part)

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
        current, parts = tf.convert_to_tensor(self.unconstrained), []
        for name, scale in self.scales.items():
            part = current[self._slices[name]]
            if name in values:
                # Single precision would round what is next to an end to the end.
                value = keras.ops.convert_to_tensor(values[name], dtype="float64")
                part = tf.reshape(scale.unconstrain(value), [scale.size])
                part = tf.cast(part, current.dtype)
            parts.append(part)
        return tf.concat(parts, 0)

    def current(self) -> dict[str, tf.Tensor]:
        """Current values by name, as tensors that are differentiable in λ."""
        return self.constrain(tf.convert_to_tensor(self.unconstrained))

    def current_value(self, name: str) -> tf.Tensor:
        """Current value of one hyperparameter, differentiable in λ."""
        return self._constrain(tf.convert_to_tensor(self.unconstrained), name)

    def values(self) -> dict[str, int | float | np.ndarray]:
        """Current values by name: floats, ints, or arrays if vector-valued.

        They are computed in double precision, in which a value next to an end of its
        range is not yet that end, so that `assign` takes it back.
        """
        unconstrained = tf.cast(self.unconstrained, tf.float64)
        values = self.constrain(unconstrained)
        return {n: _to_python(v, self.scales[n].python_type) for n, v in values.items()}

    def assign(self, values: Mapping[str, ArrayLike]) -> None:
        """Set hyperparameters.

        Args:
            values: Dict from names to numbers or arrays on the constrained scale, of
                the hyperparameter's shape. What is left out keeps its value.

        Raises:
            ValueError: If a name is unknown, or a value is outside its range or has
                another shape. No hyperparameter changes then.
        """
        self.check_names(values)
        checked = {n: self.scales[n].check_value(v, n) for n, v in values.items()}
        self.unconstrained.assign(self.unconstrain(checked))

    def perturbation_scale(self) -> tf.Tensor:
        """σ, `[h]`, positive, differentiable in its raw value."""
        return tf.nn.softplus(tf.convert_to_tensor(self.raw_perturbation_scale))

    def perturbation_scales(self) -> dict[str, float | np.ndarray]:
        """σ by name, on the unconstrained scale, as floats or arrays.

        An array has the shape of the unconstrained form.
        """
        sigma = self.perturbation_scale()
        return {
            n: _to_python(tf.reshape(sigma[self._slices[n]], s.unconstrained_shape))
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
        posterior = tfd.Normal(
            tf.convert_to_tensor(self.unconstrained), self.perturbation_scale()
        )
        terms, pieces = -posterior.entropy(), []
        for name, scale in self.scales.items():
            part = self._slices[name]
            if scale.prior is None:
                pieces.append(terms[part])
                continue
            center = scale.unconstrain(scale.prior.center_of(scale.shape))
            center = tf.cast(tf.reshape(center, [scale.size]), terms.dtype)
            prior = tfd.Normal(center, tf.cast(scale.prior.scale, terms.dtype))
            pieces.append(tfd.kl_divergence(posterior[part], prior))
        return tf.reduce_sum(tf.concat(pieces, 0))

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


def _collect(hyperparameters, named):
    pairs = hyperparameters or []
    pairs = list(pairs.items() if isinstance(pairs, Mapping) else pairs)
    scales = {}
    for name, scale in [*pairs, *named.items()]:
        if not isinstance(name, str) or not name:
            raise TypeError(f"A name must be a non-empty string. Received: {name!r}")
        if name in scales:
            raise ValueError(f"Hyperparameter '{name}' is given twice.")
        if not isinstance(scale, Scale):
            raise TypeError(
                f"Hyperparameter '{name}' must be a scale such as "
                f"bilevel_tf.Uniform(0.0, 1.0, initial=0.5). Received: {scale!r}"
            )
        scales[name] = scale
    if not scales:
        raise ValueError(
            "A HyperparameterSpace needs at least one hyperparameter, for example "
            "HyperparameterSpace(dropout=bilevel_tf.Uniform(0.0, 0.95, initial=0.1))"
        )
    return scales


def _to_python(tensor, python_type=float):
    array = np.asarray(tensor)
    return python_type(array) if array.ndim == 0 else array.astype(python_type)
