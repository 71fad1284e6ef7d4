"""What `compile` asks of a `tf.distribute` strategy, and of what is made under it."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec

import keras
import tensorflow as tf

from bilevel_tf.optimizers.tuned import TunedOptimizer

_P = ParamSpec("_P")
_SUPPORTED = tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy


def under_strategy(compile_model: Callable[_P, None]) -> Callable[_P, None]:
    """Make `compile` check the model's strategy first, and make variables under it.

    Args:
        compile_model: The method `compile` of a `BilevelModel`.

    Returns:
        The same method. It raises a `ValueError` if the strategy is not supported, if
        the model or an optimizer was not made under it, or if an option does not work
        with several replicas.
    """
    signature = inspect.signature(compile_model)

    @functools.wraps(compile_model)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> None:
        given = dict(signature.bind(*args, **kwargs).arguments)
        model, options = given["self"], given.get("kwargs", {})
        strategy = model.network.strategy
        _check_no_distribution()
        _check_made_together(model, strategy)
        if strategy is None:
            return compile_model(*args, **kwargs)
        _check_supported(strategy)
        for name in ("optimizer", "response_optimizer", "hyper_optimizer"):
            _check_optimizer(name, given.get(name), strategy)
        if strategy.num_replicas_in_sync > 1:
            _check_options(options, strategy)
        with strategy.scope():
            return compile_model(*args, **kwargs)

    return checked


def _check_no_distribution():
    if keras.distribution.distribution() is not None:
        raise ValueError(
            "keras.distribution does not distribute training under TensorFlow. Make "
            "the model in the scope of a tf.distribute.MirroredStrategy, and call "
            "keras.distribution.set_distribution(None). Received: a "
            f"{type(keras.distribution.distribution()).__name__} that is set"
        )


def _check_made_together(model, strategy):
    """Raise a `ValueError` unless model and variables were made under one strategy."""
    check_in_scope(model, "compile")
    for variable in model.variables:
        if not _is_under(strategy, variable):
            name = "no strategy" if strategy is None else f"a {type(strategy).__name__}"
            raise ValueError(
                "All parts of a model must be made under the same strategy: the "
                "HyperparameterSpace, the layers and the model. Make them inside one "
                "`with strategy.scope():`, or all outside. Received: a model made "
                f"under {name}, whose variable '{variable.path}' was not"
            )


def check_in_scope(model: keras.Model, method: str) -> None:
    """Raise a `ValueError` in the scope of a strategy that is not the model's.

    Args:
        model: A `BilevelModel`.
        method: The name of the method that was called there.
    """
    strategy, present = model.network.strategy, tf.distribute.get_strategy()
    if not tf.distribute.has_strategy() or present is strategy:
        return
    made = "outside of any" if strategy is None else "under another"
    raise ValueError(
        f"`{method}` must be called under the strategy that the model was made under. "
        "Make the HyperparameterSpace, the layers, the model and its optimizers inside "
        f"`with strategy.scope():`. Received: a model made {made} strategy, and "
        f"`{method}` called under a {type(present).__name__}"
    )


def _check_supported(strategy):
    if not isinstance(strategy, _SUPPORTED):
        raise ValueError(
            "A BilevelModel can be trained under tf.distribute.MirroredStrategy (one "
            "machine, several devices) or tf.distribute.OneDeviceStrategy. Under "
            "others, hyperparameters of different workers would go apart. "
            f"Received: a model made under {type(strategy).__name__}"
        )


def _check_optimizer(name, optimizer, strategy):
    if isinstance(optimizer, TunedOptimizer):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return
    if not all(_is_under(strategy, variable) for variable in optimizer.variables):
        raise ValueError(
            f"`{name}` must be made under the strategy of the model: make it inside "
            "`with strategy.scope():`, or give `compile` its name. Otherwise every "
            f"replica would count the steps of all. Received: {name}="
            f"{type(optimizer).__name__}, made outside of the {type(strategy).__name__}"
        )


def _check_options(options, strategy):
    """Refuse what Keras itself cannot do with several replicas, before it starts."""
    reasons = {
        "jit_compile": (options.get("jit_compile") is True, "False", "XLA"),
        "steps_per_execution": (
            options.get("steps_per_execution", 1) != 1,
            "1",
            "a loop over training steps",
        ),
    }
    for name, (bad, right, what) in reasons.items():
        if bad:
            raise ValueError(
                f"`{name}` must be {right} under a strategy with several replicas, "
                f"which Keras cannot combine with {what}. Received: "
                f"{name}={options[name]!r} with "
                f"{strategy.num_replicas_in_sync} replicas"
            )


def _is_under(strategy, variable):
    under = (strategy or tf.distribute.get_strategy()).extended
    return under.variable_created_in_scope(variable.value)
