"""Hyperparameters in the configs of Keras objects."""

from typing import Any

import keras
import numpy as np

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter


def config_of(argument: Any) -> Any:
    """The entry of a `get_config` for an argument that holds hyperparameters.

    Args:
        argument: A number, a `Hyperparameter`, or lists, tuples and dicts of these,
            nested as you like.

    Returns:
        The same structure with every hyperparameter serialised: dicts, lists (also for
        tuples) and whatever else was in there as it was. `read_config` is the inverse.

    Example:

    >>> bt.hyperparameters.config_of([1.0, (2.0, 3.0)])
    [1.0, [2.0, 3.0]]
    """
    if isinstance(argument, Hyperparameter):
        return keras.saving.serialize_keras_object(argument)
    if isinstance(argument, dict):
        return {key: config_of(value) for key, value in argument.items()}
    if isinstance(argument, (list, tuple)):
        return [config_of(value) for value in argument]
    return argument


def read_config(argument: Any) -> Any:
    """An argument in which serialised hyperparameters are hyperparameters again.

    Keras gives the constructor of a layer, regularizer or loss the entries of its
    config as they are, with dicts in place of hyperparameters. A `Tunable` reads such
    a dict itself. For an argument that is a list or dict of hyperparameters call this
    function in the constructor. What is given as hyperparameters stays what it is.

    Args:
        argument: A number, a `Hyperparameter`, a serialised one, or lists, tuples and
            dicts of these.

    Returns:
        The same structure, in new lists and dicts.

    Example:

    >>> @keras.saving.register_keras_serializable("my_package")
    ... class PowerSeries(keras.layers.Layer):
    ...     def __init__(self, factors, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.factors = bt.hyperparameters.read_config(factors)
    ...
    ...     def call(self, inputs):
    ...         value_for = bt.hyperparameters.value_for
    ...         return sum(
    ...             value_for(factor, inputs) * inputs**power
    ...             for power, factor in enumerate(self.factors)
    ...         )
    ...
    ...     def get_config(self):
    ...         factors = bt.hyperparameters.config_of(self.factors)
    ...         return {**super().get_config(), "factors": factors}
    >>> hp = bt.HyperparameterSpace(a=bt.Positive(2.0), b=bt.Unconstrained(-1.0))
    >>> layer = PowerSeries([1.0, hp["a"], hp["b"]])
    >>> again = PowerSeries.from_config(layer.get_config())
    >>> again.factors
    [1.0, <Hyperparameter a, initial 2.0>, <Hyperparameter b, initial -1.0>]
    """
    if _is_serialized(argument):
        return keras.saving.deserialize_keras_object(argument)
    if isinstance(argument, dict):
        return {key: read_config(value) for key, value in argument.items()}
    if isinstance(argument, (list, tuple)):
        return [read_config(value) for value in argument]
    return argument


def numbers_of(argument: Any) -> Any:
    """An argument with current numbers in place of its hyperparameters.

    Args:
        argument: A number, a `Hyperparameter`, or lists, tuples and dicts of these.

    Returns:
        The same structure, with lists for tuples; a vector-valued hyperparameter is a
        list of numbers in it.

    Example:

    >>> hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 1.0, initial=0.5))
    >>> bt.hyperparameters.numbers_of({"rate": hp["rate"], "size": 3})
    {'rate': 0.5, 'size': 3}
    """
    if isinstance(argument, Hyperparameter):
        return np.asarray(argument.value()).tolist()
    if isinstance(argument, dict):
        return {key: numbers_of(value) for key, value in argument.items()}
    if isinstance(argument, (list, tuple)):
        return [numbers_of(value) for value in argument]
    return argument


def _is_serialized(argument):
    names = keras.saving.get_registered_name(Hyperparameter), Hyperparameter.__name__
    return isinstance(argument, dict) and (
        argument.get("registered_name") in names or argument.get("class_name") in names
    )
