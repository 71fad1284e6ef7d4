"""The hyperparameters of a model, together."""

import difflib

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from bilevel_tf import _random
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.scales.integer import Integer
from bilevel_tf.scales.scale import Scale

tfd = tfp.distributions


@keras.saving.register_keras_serializable("bilevel_tf")
class HyperparameterSpace(keras.layers.Layer):
    """Named, ordered hyperparameters λ and the perturbation p(ε|σ) around them.

    All are kept in one unconstrained vector of length h, next to one perturbation
    scale σ per entry; users read and write constrained values.

    Args:
        hyperparameters: Optional dict or list of pairs, name to scale; needed for
            names that are not identifiers or are arguments here.
        seed: Optional seed of the perturbations.
        name: Name of the space.
        **named: More hyperparameters, name to scale.

    Raises:
        ValueError: If there is none, or a name occurs twice.
        TypeError: If something is not a scale.

    Example:

    >>> hp = HyperparameterSpace(
    ...     dropout=Uniform(0.0, 0.95, initial=0.05),
    ...     weight_decay=LogUniform(1e-7, 1e-1, initial=1e-5),
    ... )
    >>> hp.values()
    {'dropout': 0.05, 'weight_decay': 1e-05}
    """

    def __init__(self, hyperparameters=None, *, seed=None, name=None, **named):
        dtype = named.pop("dtype", None)
        trainable = named.pop("trainable", True)
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.scales = _collect(hyperparameters, named)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._build_variables()
        self.built = True

    def _build_variables(self):
        size = sum(scale.size for scale in self.scales.values())
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
        sigma = [np.full(s.size, s.perturbation_scale) for s in self.scales.values()]
        sigma = np.concatenate(sigma)
        # softplus⁻¹, written so that small scales keep their digits
        self.raw_perturbation_scale.assign(sigma + np.log(-np.expm1(-sigma)))
        learned = [
            np.full(s.size, s.learn_perturbation_scale) for s in self.scales.values()
        ]
        self._learned_scale = np.concatenate(learned).astype("float32")

    @property
    def names(self):
        """Names in order."""
        return list(self.scales)

    @property
    def size(self):
        """h, the length of the unconstrained vector."""
        return self.unconstrained.shape[0]

    def __getitem__(self, name):
        self.check_names([name])
        return Hyperparameter(name, self.scales[name], self)

    def __contains__(self, name):
        return name in self.scales

    def check_names(self, names):
        """Raise a `ValueError` that names what is not in the space."""
        for name in names:
            if name not in self.scales:
                close = difflib.get_close_matches(str(name), self.names, n=1)
                hint = f" Did you mean '{close[0]}'?" if close else ""
                raise ValueError(
                    f"Unknown hyperparameter '{name}'.{hint} "
                    f"The space has: {', '.join(self.names)}"
                )

    def constrain(self, unconstrained):
        """Values by name, of an unconstrained tensor `[..., h]`."""
        values, start = {}, 0
        batch = tf.shape(unconstrained)[:-1]
        static_batch = unconstrained.shape[:-1]
        for name, scale in self.scales.items():
            part = unconstrained[..., start : start + scale.size]
            start += scale.size
            part = tf.reshape(part, tf.concat([batch, list(scale.shape)], 0))
            part.set_shape(static_batch + scale.shape)
            values[name] = scale.constrain(part)
        return values

    def unconstrain(self, values):
        """Unconstrained vector `[h]` of values by name; those left out are current.

        Args:
            values: Dict, name to tensor or number on the constrained scale.
        """
        self.check_names(values)
        parts, start = [], 0
        current = tf.convert_to_tensor(self.unconstrained)
        for name, scale in self.scales.items():
            part = current[start : start + scale.size]
            if name in values:
                # Single precision would round what is next to an end to the end.
                value = keras.ops.convert_to_tensor(values[name], dtype="float64")
                part = tf.reshape(scale.unconstrain(value), [scale.size])
                part = tf.cast(part, current.dtype)
            parts.append(part)
            start += scale.size
        return tf.concat(parts, 0)

    def current(self):
        """Current values by name, as tensors."""
        return self.constrain(tf.convert_to_tensor(self.unconstrained))

    def values(self):
        """Current values by name: floats, ints, or arrays where vector-valued.

        They are computed in double precision, in which a value next to an end of its
        range is not yet that end, and `assign` takes it back.
        """
        dtypes = {
            n: int if isinstance(s, Integer) else float for n, s in self.scales.items()
        }
        unconstrained = tf.cast(self.unconstrained, tf.float64)
        return _to_python(self.constrain(unconstrained), dtypes)

    def assign(self, values):
        """Set hyperparameters, given by name on their constrained scales.

        Raises:
            ValueError: If a name is unknown or a value outside its range.
        """
        self.check_names(values)
        for name, value in values.items():
            values = {**values, name: self.scales[name].check_value(value, name)}
        self.unconstrained.assign(self.unconstrain(values))

    def perturbation_scale(self):
        """σ, `[h]`, positive, differentiable in its raw value."""
        return tf.nn.softplus(tf.convert_to_tensor(self.raw_perturbation_scale))

    def perturbation_scales(self):
        """σ by name, on the unconstrained scale, as floats or arrays."""
        sigma, parts, start = self.perturbation_scale(), {}, 0
        for name, scale in self.scales.items():
            parts[name] = tf.reshape(sigma[start : start + scale.size], scale.shape)
            start += scale.size
        return _to_python(parts, dict.fromkeys(parts, float))

    def mask_fixed_scales(self, gradient):
        """The gradient with zeros where σ is not to be learned."""
        return gradient * tf.cast(self._learned_scale, gradient.dtype)

    def sample(self, batch_size):
        """Draw ε ~ N(0, σ²), `[batch_size, h]`, differentiable in σ."""
        noise = _random.normal((batch_size, self.size), self.dtype, self.seed_generator)
        return noise * self.perturbation_scale()

    def complexity(self):
        """Scalar that the outer objective adds τ times.

        The negative entropy −H[p(ε|σ)] of the perturbation (Eq. 2.7), where a
        hyperparameter has a prior its KL divergence from it instead.
        """
        posterior = tfd.Normal(
            tf.convert_to_tensor(self.unconstrained), self.perturbation_scale()
        )
        terms, start = -posterior.entropy(), 0
        pieces = []
        for scale in self.scales.values():
            part = slice(start, start + scale.size)
            start += scale.size
            if scale.prior is None:
                pieces.append(terms[part])
                continue
            center = scale.unconstrain(tf.cast(scale.prior.center, terms.dtype))
            prior = tfd.Normal(center, tf.cast(scale.prior.scale, terms.dtype))
            pieces.append(tfd.kl_divergence(posterior[part], prior))
        return tf.reduce_sum(tf.concat(pieces, 0))

    def get_config(self):
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
    def from_config(cls, config):
        """The inverse of `get_config`."""
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        pairs = [(n, deserialize(s)) for n, s in config.pop("hyperparameters")]
        return cls(pairs, **config)


def _collect(hyperparameters, named):
    pairs = hyperparameters or []
    pairs = list(pairs.items() if isinstance(pairs, dict) else pairs)
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


def _to_python(tensors, dtypes):
    values = {}
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        values[name] = dtypes[name](array) if array.ndim == 0 else array
    return values
