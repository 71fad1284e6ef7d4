"""An optimizer whose own hyperparameters are functions of λ."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter

_NOT_TUNABLE = {
    "name",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
}


@keras.saving.register_keras_serializable("bilevel_tf")
class TunedOptimizer:
    """A Keras optimizer whose learning rate, momentum, … are computed from λ.

    Use it in place of a Keras optimizer with a method that differentiates the
    optimizer's steps, such as `Unrolled` or `ForwardMode`: as `optimizer` of
    `BilevelModel.compile`, or in `bilevel_tf.hypergradient`.

    Args:
        optimizer: A Keras optimizer, its name, or its config. It supplies the type of
            the steps and all numbers that are not named in `functions`.
        **functions: By the name of an argument of the optimizer, such as
            `learning_rate`, `momentum`, `weight_decay` or `beta_1`, what computes it:

            - a hyperparameter of a space, `hp["rate"]`; the argument is its value on
              the constrained scale; or
            - a function of the hyperparameters that returns a scalar. In a model it
              gets a dict of all constrained values by name; in
              `bilevel_tf.hypergradient` it gets the structure given there. The
              function for `learning_rate` may take a second argument, the number of
              steps taken, an int32 scalar. It is then a schedule.

            By default no argument is computed. A model with functions cannot be saved
            as a whole, only its weights; a model with hyperparameters can.

    Raises:
        ValueError: If the optimizer has no such argument, or the argument is not a
            number.
        TypeError: If `optimizer` is not an optimizer, or what should compute an
            argument is neither a hyperparameter nor a function.

    Attributes:
        optimizer: The Keras optimizer.
        config: Its config before its numbers were replaced.
        functions: What was given, by name.

    Example:

    A learning rate and a momentum that `fit` tunes:

    >>> hp = bt.HyperparameterSpace(
    ...     rate=bt.LogUniform(1e-4, 1.0, initial=0.01),
    ...     momentum=bt.Uniform(0.0, 1.0, initial=0.9))
    >>> optimizer = bt.TunedOptimizer(
    ...     "sgd", learning_rate=hp["rate"], momentum=hp["momentum"])

    The same with functions, here with a schedule:

    >>> optimizer = bt.TunedOptimizer(
    ...     keras.optimizers.SGD(momentum=0.9),
    ...     learning_rate=lambda h, step: h["rate"] / (1 + step // 100))
    >>> optimizer.values({"rate": 0.5}, step=100)
    {'learning_rate': 0.25}
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | str | dict[str, Any],
        **functions: Hyperparameter | Callable[..., tf.Tensor],
    ):
        if isinstance(optimizer, (str, dict)):
            optimizer = keras.optimizers.get(optimizer)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                "`optimizer` must be a Keras optimizer. "
                f"Received: optimizer={optimizer!r}"
            )
        config = read_config(optimizer)
        known = [name for name in config if _is_tunable(name, config[name])]
        for name, function in functions.items():
            if name not in known:
                raise ValueError(
                    f"{type(optimizer).__name__} has no number `{name}` that could be "
                    f"tuned. Its numbers are {', '.join(known)}. "
                    f"Received: {name}={function!r}"
                )
            if not callable(function) and not isinstance(function, Hyperparameter):
                raise TypeError(
                    f"`{name}` must be a hyperparameter of a space, or a function of "
                    f"the hyperparameters. Received: {name}={function!r}"
                )
            if isinstance(function, Hyperparameter) and function.shape != ():
                raise ValueError(
                    f"`{name}` must be a scalar hyperparameter. Received: "
                    f"hyperparameter '{function.name}' of shape {function.shape}"
                )
        self.optimizer = optimizer
        self.config = config
        self.functions = functions
        self._serialized = keras.saving.serialize_keras_object(optimizer)

    def values(
        self, hyperparameters: Any, step: tf.Tensor | int
    ) -> dict[str, tf.Tensor]:
        """Return the computed arguments by name, scalars.

        Args:
            hyperparameters: λ, in the structure that the functions expect. If any
                number is computed by a hyperparameter, a dict of constrained values
                by name.
            step: Number of steps taken so far, an int32 scalar.
        """
        values = {}
        for name, function in self.functions.items():
            if isinstance(function, Hyperparameter):
                values[name] = hyperparameters[function.name]
            elif name == "learning_rate" and _takes_two_arguments(function):
                values[name] = function(hyperparameters, step)
            else:
                values[name] = function(hyperparameters)
        return values

    def get_config(self) -> dict[str, Any]:
        """Return the optimizer as it was given, and its hyperparameters.

        Raises:
            ValueError: If a function computes a number, since a function has no
                config.
        """
        for name, function in self.functions.items():
            if not isinstance(function, Hyperparameter):
                raise ValueError(
                    f"`{name}` is computed by a function, which cannot be saved. Give "
                    "a hyperparameter of the space instead, or save the weights alone "
                    f"with `save_weights`. Received: {name}={function!r}"
                )
        serialize = keras.saving.serialize_keras_object
        functions = {name: serialize(f) for name, f in self.functions.items()}
        return {"optimizer": self._serialized, **functions}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TunedOptimizer":
        """Return the `TunedOptimizer` that `get_config` describes."""
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{name: deserialize(value) for name, value in config.items()})


def read_config(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Return the config of an optimizer, with its present learning rate.

    Raises:
        ValueError: If it was made inside the `tf.function` that is being traced: its
            variables have no values yet.
    """
    in_graph = not tf.executing_eagerly()
    try:
        with tf.init_scope():
            return optimizer.get_config()
    except (TypeError, NotImplementedError, tf.errors.OpError) as error:
        if not in_graph:
            raise
        raise ValueError(
            "`optimizer` must be made outside of the `tf.function` that uses it: "
            "variables that are made inside, such as its learning rate, have no values "
            "yet. Make it once, before the function, and use it in there. "
            f"Received: optimizer of class {type(optimizer).__name__}"
        ) from error


def _is_tunable(name, value):
    if name == "learning_rate":
        return True
    number = value is None or isinstance(value, (int, float))
    return number and not isinstance(value, bool) and name not in _NOT_TUNABLE


def _takes_two_arguments(function):
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(function).parameters.values()
    return len([p for p in parameters if p.kind in kinds]) >= 2
