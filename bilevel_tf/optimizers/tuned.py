"""An optimizer whose own hyperparameters are functions of λ."""

import inspect

import keras

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
    """A Keras optimizer with learning rate, momentum, … computed from λ.

    It stands for the optimizer where a method follows its steps: in
    `BilevelModel.compile` and in `bilevel_tf.hypergradient`.

    Args:
        optimizer: A Keras optimizer. It gives all values that are not named here.
        **functions: By the name of an argument of the optimizer, such as
            `learning_rate`, `momentum`, `weight_decay` or `beta_1`: a hyperparameter
            of a space, or a function of the hyperparameters (of a model: of a dict of
            all values by name) that returns a scalar. That of the learning rate may
            take a second argument, the number of steps taken, an int32 scalar: a
            schedule. A model is saved with hyperparameters, but not with functions.

    Raises:
        ValueError: If the optimizer has no such argument, or it is not a number.
        TypeError: If what is given is not a function.

    Example:

    >>> optimizer = bt.TunedOptimizer(
    ...     keras.optimizers.SGD(momentum=0.9),
    ...     learning_rate=lambda h: tf.exp(h["log_rate"]),
    ...     momentum=lambda h: tf.sigmoid(h["momentum"]))
    >>> optimizer = bt.TunedOptimizer("sgd", learning_rate=hp["learning_rate"])
    """

    def __init__(self, optimizer, **functions):
        if isinstance(optimizer, (str, dict)):
            optimizer = keras.optimizers.get(optimizer)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                "`optimizer` must be a Keras optimizer. "
                f"Received: optimizer={optimizer!r}"
            )
        config = optimizer.get_config()
        known = [name for name in config if _tunable(name, config[name])]
        for name, function in functions.items():
            if name not in known:
                raise ValueError(
                    f"{type(optimizer).__name__} has no number `{name}` that could be "
                    f"tuned; it has {', '.join(known)}."
                )
            if not callable(function) and not isinstance(function, Hyperparameter):
                raise TypeError(
                    f"`{name}` must be a hyperparameter of a space, or a function of "
                    f"the hyperparameters. Received: {name}={function!r}"
                )
        self.optimizer = optimizer
        self.config = config
        self.functions = functions
        self._serialized = keras.saving.serialize_keras_object(optimizer)

    def values(self, hyperparameters, step):
        """The computed arguments by name, scalars.

        Args:
            hyperparameters: λ, in the structure that the functions expect.
            step: Number of steps taken, an int32 scalar.
        """
        values = {}
        for name, function in self.functions.items():
            if isinstance(function, Hyperparameter):
                values[name] = hyperparameters[function.name]
            elif name == "learning_rate" and _takes_two(function):
                values[name] = function(hyperparameters, step)
            else:
                values[name] = function(hyperparameters)
        return values

    def get_config(self):
        """The optimizer as it was given, and its hyperparameters.

        Raises:
            ValueError: If a number is computed by a function, which has no config.
        """
        for name, function in self.functions.items():
            if not isinstance(function, Hyperparameter):
                raise ValueError(
                    f"`{name}` is computed by a function, which cannot be saved. Give "
                    "it as a hyperparameter of the space, or save the weights alone."
                )
        serialize = keras.saving.serialize_keras_object
        functions = {name: serialize(f) for name, f in self.functions.items()}
        return {"optimizer": self._serialized, **functions}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{name: deserialize(value) for name, value in config.items()})


def _tunable(name, value):
    if name == "learning_rate":
        return True
    number = value is None or isinstance(value, (int, float))
    return number and not isinstance(value, bool) and name not in _NOT_TUNABLE


def _takes_two(function):
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(function).parameters.values()
    return len([p for p in parameters if p.kind in kinds]) >= 2
