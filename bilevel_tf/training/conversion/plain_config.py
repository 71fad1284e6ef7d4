"""Configs of layers in terms of Keras alone, with numbers for hyperparameters."""

from typing import Any

import keras
import numpy as np

from bilevel_tf.hyperparameters.configs import numbers_of
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.layers.counterparts import VARIATIONAL, plain_class
from bilevel_tf.regularizers.normal_prior import NormalPrior
from bilevel_tf.regularizers.norms import L1, L1L2, L2
from bilevel_tf.regularizers.weight_prior import WeightPrior

VARIATIONAL_ARGUMENTS = ("prior", "bias_prior", "estimator", "initial_scale", "seed")
_NUMBERS = ("l1", "l2", "precision", "mean")
_PLAIN_REGULARIZERS = {
    L1: keras.regularizers.L1,
    L2: keras.regularizers.L2,
    L1L2: keras.regularizers.L1L2,
}


def plain_config(layer: Any, space: HyperparameterSpace) -> dict[str, Any]:
    """Return the config of the Keras layer in whose place a layer stands.

    What the config contains, such as a wrapped layer, is translated in the same way.

    Args:
        layer: A layer or other operation of a graph.
        space: The space whose present values replace hyperparameters.
    """
    return _translate_arguments(type(layer), layer.get_config(), space)


def _translate_arguments(layer_class, config, space):
    variational = layer_class in VARIATIONAL.values()
    dropped = VARIATIONAL_ARGUMENTS if variational else ()
    return {k: _translate(v, space) for k, v in config.items() if k not in dropped}


def _translate(entry, space):
    """A part of a config with Keras's objects in place of this library's."""
    if isinstance(entry, (Hyperparameter, keras.regularizers.Regularizer)):
        # A `get_config` may leave it to Keras to serialise what it returns.
        entry = keras.saving.serialize_keras_object(entry)
    if isinstance(entry, (list, tuple)):
        return type(entry)(_translate(part, space) for part in entry)
    if not isinstance(entry, dict):
        return entry
    name = entry.get("registered_name") or ""
    kind = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    if kind is Hyperparameter:
        return numbers_of(_bound(entry, space))
    if kind in _PLAIN_REGULARIZERS or _is_prior(kind):
        plain = _plain_regularizer(_bound(entry, space))
        return plain and keras.saving.serialize_keras_object(plain)
    plain = plain_class(kind) if isinstance(kind, type) else None
    if plain is not None and plain is not kind:
        return {
            "module": "keras.layers",
            "class_name": plain.__name__,
            "config": _translate_arguments(kind, entry["config"], space),
            "registered_name": None,
        }
    return {key: _translate(part, space) for key, part in entry.items()}


def _is_prior(kind):
    return isinstance(kind, type) and issubclass(kind, WeightPrior)


def _bound(entry, space):
    """The object of a serialised entry, with its hyperparameters in the space."""
    found = keras.saving.deserialize_keras_object(entry)
    for reference in references(found):
        reference.bind(space)
    return found


def _plain_regularizer(own):
    """Keras's penalty of the same value, or `None` if Keras has no such penalty.

    Keras has none with a factor per weight, and none around a mean other than zero.
    """
    if type(own) not in _PLAIN_REGULARIZERS and not isinstance(own, NormalPrior):
        return None
    held = {name: vars(own)[name] for name in _NUMBERS if name in vars(own)}
    numbers = {n: np.asarray(value, float) for n, value in numbers_of(held).items()}
    if any(number.ndim for number in numbers.values()):
        return None
    if isinstance(own, NormalPrior):
        half = 0.5 * numbers["precision"] / own.data_size
        return None if numbers["mean"] else keras.regularizers.L2(float(half))
    plain = _PLAIN_REGULARIZERS[type(own)]
    return plain(**{name: float(n) for name, n in numbers.items()})
