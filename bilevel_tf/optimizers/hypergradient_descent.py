"""Learning rates by hypergradient, learnt online beside the weights."""

import collections

import keras
import tensorflow as tf

from bilevel_tf._arguments import non_negative, positive

GRANULARITIES = ("global", "layer", "parameter")
RULES = ("additive", "multiplicative")

# Their update is rate · direction, with a direction that depends on gradients alone.
OPTIMIZERS = {
    name: getattr(keras.optimizers, name)
    for name in ("Adagrad", "Adam", "AdamW", "Adamax", "Lion", "RMSprop", "SGD")
}

# What Keras does around an update. It is done here, and not by the wrapped optimizer.
AROUND = {
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
class HypergradientDescent(keras.optimizers.Optimizer):
    """A Keras optimizer that learns its own learning rates.

    Every step first moves the rate α along the derivative of the loss with respect to
    the rate of the step before, then the weights θ with the new rate:

        h_t = ∇L(θ_{t−1}) · d_{t−1}
        α_t = α_{t−1} − β h_t                                (additive)
        α_t = α_{t−1} (1 − β h_t / (‖∇L‖ ‖d_{t−1}‖))         (multiplicative)
        θ_t = θ_{t−1} + α_t d_t

    The direction d is what the wrapped optimizer does at rate 1: −g for SGD, −m̂/(√v̂+ε)
    for Adam. It is kept from one step to the next: one more slot per weight.

    Momentum is of directions, as in the paper and in PyTorch: v ← μv − g, θ ← θ + αv.
    Keras has the rate inside, v ← μv − αg, the same while the rate is constant. Weight
    decay is part of the direction, so that rates account for it. Gradients are those
    that the wrapped optimizer would see: clipped or accumulated, where it says so.
    Constraints and moving averages of weights are not differentiated.

    Args:
        optimizer: What to wrap, not yet built: an instance, name or config of Adagrad,
            Adam, AdamW, Adamax, Lion, RMSprop or SGD, with a float as learning rate,
            where all rates start. A copy is taken.
        hyper_learning_rate: β. There is no default since its scale is that of the
            problem: the additive rule moves a rate by β times the product of two
            gradients. The paper's code has 1e-3 for SGD, 1e-7 to 1e-8 for Adam.
            In the multiplicative rule it is the largest relative change in one step.
        granularity: "global" for one rate; "layer" for one per layer, that is for
            the variables whose `path` is the same up to its last "/" (where a path
            occurs again, of another layer of that name); "parameter" for one per
            weight, where the products above are elementwise (and the multiplicative
            rule uses the sign of h). Defaults to "global".
        rule: "additive" or "multiplicative". Defaults to "additive".
        low: Of every rate. Defaults to 0: below it a step would ascend. The
            additive rule leaves 0 again as soon as two directions agree.
        high: Of every rate. Defaults to 1, far above where training diverges as a
            rule, to stop a rate that runs away because β is too large.
        hyper_clipvalue: Largest absolute value of h, or of the normalised h in the
            multiplicative rule. Defaults to `None`: not clipped.
        name: As in Keras.

    A rate whose hypergradient is NaN or infinite stays as it is.

    Raises:
        ValueError: If an argument is not one of these, the optimizer is another, is
            built, or has a schedule, or its learning rate is not within the bounds.

    Example:
        >>> sgd = keras.optimizers.SGD(0.01, momentum=0.9)
        >>> optimizer = HypergradientDescent(sgd, 1e-4, granularity="layer")
        >>> model.compile(optimizer, loss="mse")
        >>> model.fit(x, y)
        >>> optimizer.learning_rates()
        {'dense': 0.0137, 'dense_1': 0.0121}

    Reference:
        Almeida, Langlois, Amaral & Plakhov, "Parameter adaptation in stochastic
        optimization", 1998; Baydin, Cornish, Martínez Rubio, Schmidt & Wood, "Online
        learning rate adaptation with hypergradient descent", 2018, Alg. 4 to 6.
    """

    def __init__(
        self,
        optimizer,
        hyper_learning_rate,
        granularity="global",
        rule="additive",
        low=0.0,
        high=1.0,
        hyper_clipvalue=None,
        name=None,
    ):
        if isinstance(optimizer, dict):
            optimizer = dict(optimizer)  # Keras would change it.
        optimizer = _checked(keras.optimizers.get(optimizer))
        config = optimizer.get_config()
        super().__init__(
            self._mean_rate,
            weight_decay=config["weight_decay"],
            name=name,
            **{key: config[key] for key in AROUND},
        )
        # The copy keeps its weight decay, of which AdamW alone takes notice.
        self.optimizer = type(optimizer).from_config({**config, **AROUND})
        for key, value in vars(optimizer).items():
            if key.startswith("_exclude_from_weight_decay"):
                setattr(self, key, value)
        self.rule = _one_of(rule, RULES, "rule")
        self.granularity = _one_of(granularity, GRANULARITIES, "granularity")
        self.hyper_learning_rate = self._checked_hyper_rate(hyper_learning_rate)
        self.low = non_negative(low, "low")
        self.high = positive(high, "high")
        self.hyper_clipvalue = hyper_clipvalue
        if hyper_clipvalue is not None:
            self.hyper_clipvalue = positive(hyper_clipvalue, "hyper_clipvalue")
        self._initial_rate = self._checked_initial(config["learning_rate"])

    def _checked_hyper_rate(self, value):
        if self.rule == "multiplicative" and not value < 1:
            raise ValueError(
                "`hyper_learning_rate` must be below 1 in the multiplicative rule, "
                "where a rate could otherwise fall to 0 and stay there. "
                f"Received: hyper_learning_rate={value!r}"
            )
        return non_negative(value, "hyper_learning_rate")

    def _checked_initial(self, rate):
        # To the precision of Keras, which has rounded the rate.
        kind = tf.as_dtype(keras.backend.floatx()).as_numpy_dtype
        if not kind(self.low) <= kind(rate) <= kind(self.high):
            raise ValueError(
                "The learning rate of `optimizer` must be from `low` to `high`. "
                f"Received: learning_rate={rate:.6g}, low={self.low!r}, "
                f"high={self.high!r}. Change the rate or the bounds."
            )
        return rate

    def build(self, variables):
        """Create the rates, the directions and the slots of the wrapped optimizer."""
        if self.built:
            return
        super().build(variables)
        self._directions = self.add_optimizer_variables(variables, "direction")
        self._rate_names, self._rates = self._names(variables), {}
        for name, variable in zip(self._rate_names, variables, strict=True):
            if name not in self._rates:
                self._rates[name] = self._new_rate(name, variable)
        # No direction where Keras puts a "gradient" in place of the variable (float8).
        self.optimizer.build([d for d in self._directions if d is not None])
        for variable in self.optimizer.variables:
            self._track_variable(variable)

    def _names(self, variables):
        """The name of the rate of every variable."""
        if self.granularity == "global":
            return ["global"] * len(variables)
        names, seen = [], collections.Counter()
        for variable in variables:
            path = getattr(variable, "path", variable.name)
            name = path
            if self.granularity == "layer":
                name = path.rpartition("/")[0] or path
            # A path that occurs again is of another layer of the same name.
            names.append(f"{name}_{seen[path]}" if seen[path] else name)
            seen[path] += 1
        return names

    def _new_rate(self, name, variable):
        # The `Constant` of Keras rounds to single precision.
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
    def learning_rate(self):
        """The mean of all rates, a scalar.

        To set it scales all rates alike, and clips them to the bounds. So a callback
        that halves the rate keeps what was learnt of the ratios.
        """
        return self._mean_rate()

    @learning_rate.setter
    def learning_rate(self, value):
        value = non_negative(float(value), "learning_rate")
        value = min(max(value, self.low), self.high)
        if not self.built:
            self._initial_rate = value
            return
        mean = self._mean_rate()
        for rate in self._rates.values():
            # Exact where all rates are equal, also at 0.
            offset = tf.math.divide_no_nan(rate - mean, mean) * value
            rate.assign(self._bounded(value + offset))

    def learning_rates(self):
        """All rates by name: floats, or arrays where there is one per weight.

        Raises:
            ValueError: If the optimizer is not built yet.
        """
        if not self.built:
            raise ValueError(
                "There are no learning rates before the optimizer is built, by `fit` "
                "or by `optimizer.build(model.trainable_variables)`."
            )
        arrays = {name: rate.numpy() for name, rate in self._rates.items()}
        return {name: a if a.ndim else float(a) for name, a in arrays.items()}

    def _mean_rate(self):
        if not self.built:
            return tf.constant(self._initial_rate, keras.backend.floatx())
        rates = [tf.reshape(rate, [-1]) for rate in self._rates.values()]
        return tf.reduce_mean(tf.concat(rates, 0))

    # One step

    def apply(self, grads, trainable_variables=None):
        """As in Keras."""
        super().apply(grads, trainable_variables)
        # Adam corrects its bias by the number of steps.
        self.optimizer._iterations.assign(self.iterations)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # Here gradients are complete, and no direction is overwritten yet.
        grads_and_vars = super()._all_reduce_sum_gradients(grads_and_vars)
        self._learn_rates(grads_and_vars)
        return grads_and_vars

    def _learn_rates(self, grads_and_vars):
        """α_t of all rates."""
        pairs = {name: [] for name in self._rates}
        for gradient, variable in grads_and_vars:
            index = self._get_variable_index(variable)
            pair = tf.convert_to_tensor(gradient), self._directions[index]
            pairs[self._rate_names[index]].append(pair)
        for name, rate in self._rates.items():
            if pairs[name]:
                rate.assign(self._next_rate(rate, self._hypergradient(pairs[name])))

    def _hypergradient(self, pairs):
        """h_t, of the shape of the rate; normalised in the multiplicative rule."""

        def product(a, b):
            a, b = (tf.cast(x, keras.backend.floatx()) for x in (a, b))
            return a * b if self.granularity == "parameter" else tf.reduce_sum(a * b)

        inner = tf.add_n([product(g, d) for g, d in pairs])
        if self.rule == "additive":
            return inner
        # Not the root of a product, which could underflow.
        gradient = tf.sqrt(tf.add_n([product(g, g) for g, _ in pairs]))
        direction = tf.sqrt(tf.add_n([product(d, d) for _, d in pairs]))
        return tf.math.divide_no_nan(inner, gradient * direction)

    def _next_rate(self, rate, hypergradient):
        """α_t from α_{t−1} and h_t."""
        change = hypergradient
        if self.hyper_clipvalue is not None:
            limit = self.hyper_clipvalue
            change = tf.clip_by_value(change, -limit, limit)
        if self.rule == "multiplicative":
            change *= rate
        stepped = self._bounded(rate - self.hyper_learning_rate * change)
        return tf.where(tf.math.is_finite(hypergradient), stepped, rate)

    def _bounded(self, rate):
        return tf.clip_by_value(rate, self.low, self.high)

    def update_step(self, gradient, variable, learning_rate):
        """d_t and θ_t; `learning_rate` is ignored for the rate of the variable."""
        index = self._get_variable_index(variable)
        direction = self._directions[index]
        self.assign(direction, tf.zeros_like(direction))
        self.optimizer.update_step(gradient, direction, 1.0)
        if self.weight_decay is not None and self._use_weight_decay(variable):
            self.assign_sub(direction, self.weight_decay * variable)
        rate = tf.cast(self._rates[self._rate_names[index]], variable.dtype)
        self.assign_add(variable, rate * direction)

    def _apply_weight_decay(self, variables):
        """Nothing: it is part of the direction."""

    def get_config(self):
        """As in Keras, with the mean of the current rates as that of the optimizer."""
        optimizer = keras.saving.serialize_keras_object(self.optimizer)
        around = {key: getattr(self, key) for key in AROUND}
        # Rounding may have put a mean of equal rates outside.
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


def _checked(optimizer):
    """Return `optimizer`, or raise a `ValueError` unless it can be wrapped."""
    if type(optimizer) not in OPTIMIZERS.values():
        raise ValueError(
            "`optimizer` must have an update that is its learning rate times a "
            f"direction: one of {', '.join(OPTIMIZERS)}. "
            f"Received: optimizer={optimizer!r}"
        )
    if optimizer.built:
        raise ValueError(
            "`optimizer` must not be built: its state would be lost, since a copy is "
            f"wrapped. Make a new one. Received: optimizer={optimizer!r}"
        )
    if not isinstance(optimizer._learning_rate, keras.Variable):
        raise ValueError(
            "`optimizer` must have a float as its learning rate, where the learnt rate "
            "starts, and no schedule, which would overwrite what is learnt. "
            f"Received: learning_rate={optimizer._learning_rate!r}"
        )
    return optimizer


def _one_of(value, allowed, name):
    """Return `value`, or raise a `ValueError` unless it is one of `allowed`."""
    if value not in allowed:
        shown = ", ".join(repr(a) for a in allowed)
        raise ValueError(f"`{name}` must be one of {shown}. Received: {name}={value!r}")
    return value
