"""Learning rates that are learnt online, beside the weights, by their hypergradient."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf._arguments import check_choice, check_non_negative, check_positive
from bilevel_tf.optimizers.rate_groups import GRANULARITIES, name_rates
from bilevel_tf.optimizers.rate_rules import RULES, next_rate, rate_hypergradient

# Each of these updates a weight by rate · direction, and the direction depends only on
# gradients.
OPTIMIZERS = {
    name: getattr(keras.optimizers, name)
    for name in ("Adagrad", "Adam", "AdamW", "Adamax", "Lion", "RMSprop", "SGD")
}

# Arguments for what Keras does before and after an update, and their defaults. This
# optimizer does it itself; the wrapped one gets the defaults.
AROUND_UPDATE = {
    "clipnorm": None,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


@keras.saving.register_keras_serializable("bilevel_tf")
class HypergradientDescent(_keras.HookedOptimizer):
    """A Keras optimizer that learns its own learning rates.

    Every step first moves the rate α against the derivative h of the loss in the rate
    of the step before, and then moves the weights θ with the new rate:

        h_t = ∇L(θ_{t−1}) · d_{t−1}
        α_t = α_{t−1} − β h_t                                (additive)
        α_t = α_{t−1} (1 − β h_t / (‖∇L‖ ‖d_{t−1}‖))         (multiplicative)
        θ_t = θ_{t−1} + α_t d_t

    The direction d is the update of the wrapped optimizer at rate 1: −g for SGD,
    −m̂/(√v̂+ε) for Adam. The optimizer keeps d until the next step, which takes one more
    slot per weight. A rate stays as it is in a step in which h is NaN or infinite.

    Momentum accumulates directions, as in the paper and in PyTorch: v ← μv − g,
    θ ← θ + αv. Keras instead has the rate inside, v ← μv − αg; the two agree as long
    as the rate is constant. Weight decay is part of the direction, so that the rates
    take account of it. Gradients are clipped and accumulated as the wrapped optimizer
    would do it, before h is computed. The derivative ignores constraints and moving
    averages of weights.

    It works with `keras.Model.fit`, with `BilevelModel.compile`, under mixed precision
    and with `jit_compile=True`.

    Args:
        optimizer: The optimizer to wrap, which must not be built: an instance, name or
            config of Adagrad, Adam, AdamW, Adamax, Lion, RMSprop or SGD. Its learning
            rate must be a float, and is where all rates start. The optimizer is
            copied.
        hyper_learning_rate: β, a non-negative float. There is no default, because a
            good value depends on the problem. The additive rule changes a rate by β
            times a product of two gradients; the paper's code uses 1e-3 for SGD and
            1e-7 to 1e-8 for Adam. In the multiplicative rule β is the largest relative
            change of a rate in one step, and must be below 1.
        granularity: Which weights share a rate: "global", all of them; "layer", those
            of one layer, that is variables whose paths agree up to the last "/";
            "parameter", none: every entry of every weight has its own rate. The
            products in the equations are then elementwise, and the multiplicative
            rule uses the sign of h. Defaults to "global".
        rule: "additive" or "multiplicative". Defaults to "additive".
        low: Lowest value of every rate, a non-negative float. Defaults to 0, since a
            step with a negative rate would ascend. In the additive rule a rate leaves
            0 again as soon as two successive directions agree.
        high: Highest value of every rate, a positive float. Defaults to 1, which is
            usually far above the rates at which training diverges, and stops a rate
            that grows without limit because β is too large.
        hyper_clipvalue: Largest absolute value of h, or in the multiplicative rule of
            the normalised h, a positive float. Defaults to `None`: h is not clipped.
        name: Name of the optimizer. Defaults to the name of the class.

    Raises:
        ValueError: If an argument is none of the values above; if `optimizer` is of
            another class, is built, or has a schedule as learning rate; or if its
            learning rate is not between `low` and `high`.

    Attributes:
        optimizer: The copy of the wrapped optimizer.

    Example:

    SGD goes twice in the same direction, of squared length 2, so that h = −2 and the
    rate grows by 2β:

    >>> weight = keras.Variable([1.0, 2.0])
    >>> optimizer = bt.optimizers.HypergradientDescent(
    ...     keras.optimizers.SGD(0.01), hyper_learning_rate=1e-3)
    >>> for _ in range(2):
    ...     optimizer.apply([tf.constant([1.0, 1.0])], [weight])
    >>> round(float(optimizer.learning_rate), 6)
    0.012

    One rate for each layer of a model:

    >>> model = keras.Sequential([
    ...     keras.Input((2,)), keras.layers.Dense(3, name="hidden"),
    ...     keras.layers.Dense(1, name="last")], name="net")
    >>> model.compile(bt.optimizers.HypergradientDescent(
    ...     "adam", hyper_learning_rate=1e-7, granularity="layer"), loss="mse")
    >>> history = model.fit(np.ones((8, 2)), np.ones(8), verbose=0)
    >>> list(model.optimizer.learning_rates())
    ['net/hidden', 'net/last']

    Reference:
        Almeida, Langlois, Amaral & Plakhov, "Parameter adaptation in stochastic
        optimization", 1998; Baydin, Cornish, Martínez Rubio, Schmidt & Wood, "Online
        learning rate adaptation with hypergradient descent", 2018, Alg. 4 to 6.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | str | dict[str, Any],
        hyper_learning_rate: float,
        granularity: str = "global",
        rule: str = "additive",
        low: float = 0.0,
        high: float = 1.0,
        hyper_clipvalue: float | None = None,
        name: str | None = None,
    ):
        if isinstance(optimizer, dict):
            optimizer = dict(optimizer)  # Keras would change the user's.
        optimizer = _check_optimizer(keras.optimizers.get(optimizer))
        config = optimizer.get_config()
        super().__init__(
            self._mean_rate,
            weight_decay=config["weight_decay"],
            name=name,
            **{key: config[key] for key in AROUND_UPDATE},
        )
        # The copy keeps its weight decay, which only AdamW's update reads.
        self.optimizer = type(optimizer).from_config({**config, **AROUND_UPDATE})
        _keras.copy_decay_exclusions(optimizer, self)
        self.rule = check_choice(rule, "rule", RULES)
        self.granularity = check_choice(granularity, "granularity", GRANULARITIES)
        self.hyper_learning_rate = _check_step_size(hyper_learning_rate, rule)
        self.low = check_non_negative(low, "low")
        self.high = check_positive(high, "high")
        self.hyper_clipvalue = hyper_clipvalue
        if hyper_clipvalue is not None:
            self.hyper_clipvalue = check_positive(hyper_clipvalue, "hyper_clipvalue")
        self._initial_rate = _check_start(config["learning_rate"], self.low, self.high)

    def build(self, variables: list[keras.Variable]) -> None:
        """Create the rates, the directions and the slots of the wrapped optimizer.

        Args:
            variables: The variables that will be trained.
        """
        if self.built:
            return
        super().build(variables)
        self._directions = self.add_optimizer_variables(variables, "direction")
        self._rate_names = name_rates(variables, self.granularity)
        self._rates: dict[str, keras.Variable] = {}
        for name, variable in zip(self._rate_names, variables, strict=True):
            if name not in self._rates:
                self._rates[name] = self._add_rate(name, variable)
        # A variable that Keras overwrites with its "gradient" (float8) has no slot.
        self.optimizer.build([d for d in self._directions if d is not None])
        _keras.track_variables(self, self.optimizer.variables)

    def _add_rate(self, name, variable):
        # The initializer `Constant` of Keras would round to single precision.
        return self.add_variable(
            shape=variable.shape if self.granularity == "parameter" else (),
            initializer=lambda shape, dtype: tf.fill(
                shape, tf.constant(self._initial_rate, dtype)
            ),
            aggregation="only_first_replica",
            name=f"{name.replace('/', '_')}_learning_rate",
        )

    # Reading and setting rates

    @property
    def learning_rate(self) -> tf.Tensor:
        """The mean of all rates, a scalar.

        Setting it to a non-negative float multiplies all rates by the same factor and
        then clips them to the bounds. A callback that halves the rate therefore keeps
        the ratios that were learnt.
        """
        return self._mean_rate()

    @learning_rate.setter
    def learning_rate(self, value: float):
        value = check_non_negative(float(value), "learning_rate")
        value = min(max(value, self.low), self.high)
        if not self.built:
            self._initial_rate = value
            return
        mean = self._mean_rate()
        for rate in self._rates.values():
            # Written so that equal rates are set exactly, and rates of 0 at all.
            offset = tf.math.divide_no_nan(rate - mean, mean) * value
            rate.assign(tf.clip_by_value(value + offset, self.low, self.high))

    def learning_rates(self) -> dict[str, Any]:
        """Return all rates by name.

        Returns:
            A dict. The name is "global", the path of a layer or the path of a weight,
            depending on `granularity`. The value is a float, or with
            `granularity="parameter"` an array with the shape of the weight.

        Raises:
            ValueError: If the optimizer is not built yet.
        """
        if not self.built:
            raise ValueError(
                "There are no learning rates before the optimizer is built, by `fit` "
                "or by `optimizer.build(model.trainable_variables)`. "
                "Received: an optimizer that is not built"
            )
        arrays = {name: rate.numpy() for name, rate in self._rates.items()}
        return {name: a if a.ndim else float(a) for name, a in arrays.items()}

    def _mean_rate(self):
        if not self.built:
            return tf.constant(self._initial_rate, keras.backend.floatx())
        rates = [tf.reshape(rate, [-1]) for rate in self._rates.values()]
        return tf.reduce_mean(tf.concat(rates, 0))

    # One step

    def apply(
        self,
        grads: list[tf.Tensor],
        trainable_variables: list[keras.Variable] | None = None,
    ) -> None:
        """Take one step: move the rates, then the weights.

        Args:
            grads: List of gradients, one for each variable.
            trainable_variables: The variables, in the same order. Defaults to those
                that the optimizer is built for.
        """
        super().apply(grads, trainable_variables)
        # Adam's bias correction reads the number of steps.
        _keras.set_iterations(self.optimizer, self.iterations)

    def see_gradients(self, pairs: list[tuple[tf.Tensor, tf.Variable]]) -> None:
        """Move every rate from α_{t−1} to α_t, while directions are still d_{t−1}.

        Args:
            pairs: Gradients, clipped and accumulated, and their variables.
        """
        by_rate: dict[str, list[tuple]] = {name: [] for name in self._rates}
        for gradient, variable in pairs:
            index = _keras.get_variable_index(self, variable)
            pair = tf.convert_to_tensor(gradient), self._directions[index]
            by_rate[self._rate_names[index]].append(pair)
        for name, rate in self._rates.items():
            if by_rate[name]:
                rate.assign(self._move_rate(rate, by_rate[name]))

    def _move_rate(self, rate, pairs):
        elementwise = self.granularity == "parameter"
        return next_rate(
            rate,
            rate_hypergradient(pairs, self.rule, elementwise),
            self.rule,
            self.hyper_learning_rate,
            self.hyper_clipvalue,
            (self.low, self.high),
        )

    def update_step(
        self,
        gradient: tf.Tensor,
        variable: tf.Variable,
        learning_rate: tf.Tensor | float,
    ) -> None:
        """Compute d_t of one variable, and move it to θ_t.

        Args:
            gradient: Its gradient.
            variable: The variable.
            learning_rate: Ignored; the variable's own rate is used.
        """
        index = _keras.get_variable_index(self, variable)
        direction = self._directions[index]
        self.assign(direction, tf.zeros_like(direction))
        self.optimizer.update_step(gradient, direction, 1.0)
        if self.weight_decay is not None and _keras.decays_weight(self, variable):
            self.assign_sub(direction, self.weight_decay * variable)
        rate = tf.cast(self._rates[self._rate_names[index]], variable.dtype)
        self.assign_add(variable, rate * direction)

    def get_config(self) -> dict[str, Any]:
        """Return all arguments, with the mean of the current rates as learning rate."""
        optimizer = keras.saving.serialize_keras_object(self.optimizer)
        around = {key: getattr(self, key) for key in AROUND_UPDATE}
        # Rounding may put the mean of equal rates just outside the bounds.
        rate = min(max(float(self.learning_rate), self.low), self.high)
        optimizer["config"].update(around, learning_rate=rate)
        return {
            "optimizer": optimizer,
            "hyper_learning_rate": self.hyper_learning_rate,
            "granularity": self.granularity,
            "rule": self.rule,
            "low": self.low,
            "high": self.high,
            "hyper_clipvalue": self.hyper_clipvalue,
            "name": self.name,
        }


def _check_optimizer(optimizer):
    """Return `optimizer`, or raise a `ValueError` unless it can be wrapped."""
    if type(optimizer) not in OPTIMIZERS.values():
        raise ValueError(
            "`optimizer` must have an update that is its learning rate times a "
            f"direction: one of {', '.join(OPTIMIZERS)}. "
            f"Received: optimizer={optimizer!r}"
        )
    if optimizer.built:
        raise ValueError(
            "`optimizer` must not be built, because a copy of it is wrapped, and its "
            f"state would be lost. Make a new one. Received: optimizer={optimizer!r}"
        )
    source = _keras.get_rate_source(optimizer)
    if not isinstance(source, keras.Variable):
        raise ValueError(
            "`optimizer` must have a float as its learning rate, where the learnt rate "
            "starts, and no schedule, which would overwrite what is learnt. "
            f"Received: learning_rate={source!r}"
        )
    return optimizer


def _check_step_size(value, rule):
    """Return β as a float, or raise a `ValueError`."""
    if rule == "multiplicative" and not value < 1:
        raise ValueError(
            "`hyper_learning_rate` must be below 1 in the multiplicative rule. "
            "Otherwise a rate could fall to 0 and stay there. "
            f"Received: hyper_learning_rate={value!r}"
        )
    return check_non_negative(value, "hyper_learning_rate")


def _check_start(rate, low, high):
    """Return `rate`, or raise a `ValueError` unless it is between the bounds."""
    # Keras has rounded the rate to its float type, and so are the bounds.
    kind = tf.as_dtype(keras.backend.floatx()).as_numpy_dtype
    if not kind(low) <= kind(rate) <= kind(high):
        raise ValueError(
            "The learning rate of `optimizer` must be from `low` to `high`. Change the "
            f"rate or the bounds. Received: learning_rate={rate:.6g}, low={low!r}, "
            f"high={high!r}"
        )
    return rate
