"""Arguments that are a number or a hyperparameter."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import show
from bilevel_tf.hyperparameters.configs import read_config
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.scales.scale import Scale


class Tunable:
    """An argument that is a number or a hyperparameter.

    A Keras layer, regularizer, loss or any other class makes a numeric argument tunable
    by one line in its body:

        rate = bt.Tunable(low=0.0, high=1.0)

    `self.rate = rate` in the constructor then checks what the user gave, and
    `self.rate` is that number or `Hyperparameter` from then on. Accepted are

    - a finite number in the range. It stays what it is, as in Keras; a NumPy number
      becomes a Python number.
    - a hyperparameter, `space["name"]`, that cannot leave the range, whatever value it
      is tuned to, and is a scalar, unless `vector=True`.
    - a serialised hyperparameter, which is what a constructor gets when a model is
      loaded. It becomes a hyperparameter again.

    Everything else raises an error that names the class, the argument, what was given
    and what would be right.

    What else the class needs are functions in `bilevel_tf.hyperparameters`:

    - `value_of(self.rate, dtype)`: the value in force, as a tensor.
    - `value_for(self.rate, inputs)`: the same, shaped to combine with `inputs`. Methods
      that fit a best response, such as Δ-STN, run *perturbed* passes, in which every
      example of the batch has a value of its own; this is the function for what acts on
      examples.
    - `mean_value(self.rate, dtype)`: the mean over the batch in a perturbed pass; the
      function for what acts on weights.
    - `config_of(self.rate)`: the entry for `get_config`.

    Nothing more is to be done: a `BilevelModel` finds the hyperparameters that its
    layers hold and binds them to its space, after loading as well. For an argument that
    is a list or dict of hyperparameters, see `read_config`.

    Args:
        low: Least number. Defaults to −∞; the number must be finite.
        high: Greatest number. Defaults to ∞; the number must be finite.
        open_low: Whether `low` itself is excluded. Defaults to `False`.
        open_high: Whether `high` itself is excluded. Defaults to `False`.
        vector: Whether a hyperparameter may be vector-valued. Defaults to `False`.

    Raises:
        ValueError: If `low` is not below `high`.

    Example:

    A layer of one's own with a tunable argument, and a model that tunes it:

    >>> @keras.saving.register_keras_serializable("my_package")
    ... class SoftThreshold(keras.layers.Layer):
    ...     threshold = bt.Tunable(low=0.0)
    ...
    ...     def __init__(self, threshold=0.1, **kwargs):
    ...         super().__init__(**kwargs)
    ...         self.threshold = threshold
    ...
    ...     def build(self, input_shape):
    ...         self.center = self.add_weight(
    ...             name="center", shape=input_shape[-1:], initializer="zeros"
    ...         )
    ...
    ...     def call(self, inputs):
    ...         threshold = bt.hyperparameters.value_for(self.threshold, inputs)
    ...         distance = inputs - self.center
    ...         return tf.sign(distance) * tf.nn.relu(tf.abs(distance) - threshold)
    ...
    ...     def get_config(self):
    ...         threshold = bt.hyperparameters.config_of(self.threshold)
    ...         return {**super().get_config(), "threshold": threshold}
    >>> hp = bt.HyperparameterSpace(threshold=bt.Positive(0.2))
    >>> inputs = keras.Input((3,))
    >>> outputs = SoftThreshold(hp["threshold"])(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile(loss="mse", method=bt.methods.T1T2(train_steps=1))
    >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    >>> history = model.fit(x, 0.5 * x, validation_data=(x, 0.5 * x), verbose=0)
    >>> abs(hp.values()["threshold"] - 0.2) > 1e-3
    True
    >>> SoftThreshold(-1.0, name="mine")
    Traceback (most recent call last):
        ...
    ValueError: `threshold` of SoftThreshold 'mine' must be at least 0 and finite: ...
    """

    def __init__(
        self,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        open_low: bool = False,
        open_high: bool = False,
        vector: bool = False,
    ):
        if not low < high:
            raise ValueError(
                f"`low` must be less than `high`. Received: low={low}, high={high}"
            )
        self.low = low
        self.high = high
        self.open_low = open_low
        self.open_high = open_high
        self.vector = vector
        self.name = ""  # Python says the name after `__init__`.

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, holder: Any, owner: type | None = None) -> Any:
        if holder is None:
            return self
        try:
            return vars(holder)[self.name]
        except KeyError:
            raise AttributeError(
                f"{type(holder).__name__} has no `{self.name}` yet. Set it in "
                f"`__init__`: self.{self.name} = {self.name}"
            ) from None

    def __set__(self, holder: Any, value: Any) -> None:
        vars(holder)[self.name] = self.check(value, self.name, holder)

    def __delete__(self, holder: Any) -> None:
        self.__get__(holder)
        del vars(holder)[self.name]

    def check(
        self, value: Any, argument: str, holder: Any
    ) -> int | float | Hyperparameter:
        """Return the number or hyperparameter that was given, or raise an error.

        `self.argument = value` calls this. Call it directly for an argument that is a
        list of numbers or hyperparameters, entry by entry.

        Args:
            value: What was given.
            argument: Name of the argument, for the error.
            holder: The layer, or whatever has the argument, for the error.

        Raises:
            ValueError: If `value` is neither a number nor a hyperparameter, is out of
                range, or has the wrong shape; or if a hyperparameter can leave the
                range.
        """
        value = read_config(value)
        of = f"`{argument}` of {_describe(holder)}"
        if isinstance(value, Hyperparameter):
            self._check_hyperparameter(value, of)
            return value
        number = isinstance(value, (int, float, np.integer, np.floating))
        if isinstance(value, bool) or not number or not self._allows(value):
            hint = ""
            if isinstance(value, Scale):
                hint = " Put a scale in a HyperparameterSpace, and give space['name']."
            elif tf.is_tensor(value):
                hint = " Give the hyperparameter itself, not a tensor of its value."
            raise ValueError(
                f"{of} must be {self._describe_range()}: a number, or a hyperparameter "
                f"that stays there.{hint} Received: {argument}={show(value)}"
            )
        return value.item() if isinstance(value, np.generic) else value

    def _check_hyperparameter(self, value, of):
        if value.shape != () and not self.vector:
            raise ValueError(
                f"{of} must be one number, or a scalar hyperparameter. Received: "
                f"hyperparameter '{value.name}' of shape {value.shape}"
            )
        scale, (least, most) = value.scale, value.scale.ends
        inside = self.low <= least and most <= self.high
        # Most scales never take their own ends.
        inside = inside and not (self.open_low and _takes(scale, self.low))
        inside = inside and not (self.open_high and _takes(scale, self.high))
        if not inside:
            raise ValueError(
                f"{of} must be {self._describe_range()}, and so must be all values "
                f"that a hyperparameter can take. Received: hyperparameter "
                f"'{value.name}' of scale {type(scale).__name__}, with values from "
                f"{least} to {most} and the initial value {show(value.initial)}"
            )

    def _allows(self, number):
        above = self.low < number if self.open_low else self.low <= number
        below = number < self.high if self.open_high else number <= self.high
        return above and below and math.isfinite(number)

    def _describe_range(self):
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'above' if self.open_low else 'at least'} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"{'below' if self.open_high else 'at most'} {self.high:g}")
        else:
            parts.append("finite")
        return " and ".join(parts)


def _takes(scale, end):
    """Whether a hyperparameter of that scale can be `end` in all of its entries."""
    return bool(np.all(scale.allows(np.full(scale.shape, float(end)))))


def _describe(holder):
    name = getattr(holder, "name", None)
    quoted = f" '{name}'" if isinstance(name, str) else ""
    return f"{type(holder).__name__}{quoted}"
