"""An optimizer whose own hyperparameters are functions of λ."""

import inspect

import keras

_NOT_TUNABLE = {
    "name",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
}


class TunedOptimizer:
    """A Keras optimizer with learning rate, momentum, … computed from λ.

    It stands for the optimizer where a method follows its steps; it cannot itself
    train a model.

    Args:
        optimizer: A Keras optimizer. It gives all values that are not named here.
        **functions: By the name of an argument of the optimizer, such as
            `learning_rate`, `momentum`, `weight_decay` or `beta_1`: a function of the
            hyperparameters that returns a scalar. That of the learning rate may take
            a second argument, the number of steps taken, an int32 scalar: a schedule.

    Raises:
        ValueError: If the optimizer has no such argument, or it is not a number.
        TypeError: If what is given is not a function.

    Example:

    >>> optimizer = bt.TunedOptimizer(
    ...     keras.optimizers.SGD(momentum=0.9),
    ...     learning_rate=lambda h: tf.exp(h["log_rate"]),
    ...     momentum=lambda h: tf.sigmoid(h["momentum"]))
    """

    def __init__(self, optimizer, **functions):
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
            if not callable(function):
                raise TypeError(
                    f"`{name}` must be a function of the hyperparameters. "
                    f"Received: {name}={function!r}"
                )
        self.optimizer = optimizer
        self.functions = functions

    def values(self, hyperparameters, step):
        """The computed arguments by name, scalars.

        Args:
            hyperparameters: λ, in the structure that the functions expect.
            step: Number of steps taken, an int32 scalar.
        """
        return {
            name: function(hyperparameters, step)
            if name == "learning_rate" and _takes_two(function)
            else function(hyperparameters)
            for name, function in self.functions.items()
        }


def _tunable(name, value):
    if name == "learning_rate":
        return True
    number = value is None or isinstance(value, (int, float))
    return number and not isinstance(value, bool) and name not in _NOT_TUNABLE


def _takes_two(function):
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(function).parameters.values()
    return len([p for p in parameters if p.kind in kinds]) >= 2
