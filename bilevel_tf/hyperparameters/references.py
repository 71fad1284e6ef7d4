"""Find the hyperparameters that an object holds."""

import collections
import functools
import types
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter

# What is looked at in an instant, being what most attributes are.
_PLAIN = (type(None), bool, int, float, complex, str, bytes, types.FunctionType)
_COLLECTIONS = (list, tuple, set, frozenset, collections.deque)
_OPAQUE = (type, types.ModuleType, types.MethodType, keras.Layer)
# Classes of these libraries hold tensors, graphs and trackers, but no hyperparameters;
# except for the few that take a user's arguments.
_LIBRARIES = ("builtins", "numpy", "tensorflow", "tensorflow_probability", "keras")
_KERAS_HOLDERS = (
    keras.constraints.Constraint,
    keras.initializers.Initializer,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.regularizers.Regularizer,
)


def references(holder: Any) -> list[Hyperparameter]:
    """All `Hyperparameter`s that an object holds, in order, each once.

    They are found in attributes, in lists, tuples, sets and dicts, in the arguments of
    a `functools.partial`, in the regularizers of variables, and in all objects that are
    held in one of these ways, to any depth. Not searched are layers and models that the
    object holds (walk a model's layers and ask for the references of each), tensors,
    modules, classes, functions, and objects of Keras's and TensorFlow's own.

    Two references to one hyperparameter are both in the list: each must be bound.

    Args:
        holder: A layer, model, regularizer, loss, optimizer, or any other object; also
            a list or dict of such objects, or `None`.

    Example:

    >>> hp = bt.HyperparameterSpace(a=bt.Positive(0.1), b=bt.Positive(0.2))
    >>> layer = bt.HyperDense(3, kernel_regularizer=bt.L2(hp["a"]))
    >>> layer.factors = {"first": [hp["b"]]}
    >>> bt.hyperparameters.references(layer)
    [<Hyperparameter a, initial 0.1>, <Hyperparameter b, initial 0.2>]
    """
    found, seen, pending = [], {}, [holder]
    while pending:
        value = pending.pop()
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        # Kept, so that no other object gets the same id.
        seen[id(value)] = value
        if isinstance(value, Hyperparameter):
            found.append(value)
        elif value is holder and isinstance(value, keras.Layer):
            pending.extend(reversed(_attributes(value)))
        else:
            pending.extend(reversed(list(_held_by(value))))
    return found


def _held_by(value) -> Iterable:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, _COLLECTIONS):
        return value
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, keras.Variable):
        return value.regularizer, value.constraint
    if isinstance(value, _OPAQUE):
        return ()
    library = type(value).__module__.partition(".")[0]
    if library in _LIBRARIES and not isinstance(value, _KERAS_HOLDERS):
        return ()
    return _attributes(value)


def _attributes(value) -> list:
    attributes = list(getattr(value, "__dict__", {}).values())
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        names = [slots] if isinstance(slots, str) else slots
        attributes += [getattr(value, name, None) for name in names]
    return attributes
