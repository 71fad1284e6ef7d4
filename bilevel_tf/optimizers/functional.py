"""Keras optimizers as pure functions, to be differentiated."""

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer

from bilevel_tf.optimizers.tuned import TunedOptimizer

# The derivative of the square root that Adam takes of its second moment is infinite
# at 0, where a weight has had no gradient yet, and 0 · ∞ is NaN: under XLA and in
# forward mode. Small enough not to be seen next to `epsilon`, large enough for its
# inverse root to be finite.
_LEAST_SQUARE = 1e-30
_SECOND_MOMENTS = ("_velocity", "_velocity_hat")


class FunctionalOptimizer:
    """The `apply` of a Keras optimizer without side effects.

    It is that of a private copy, in whose class the updates in place, which the
    TensorFlow backend adds for `tf.distribute`, are Keras's own again. Inside a
    `keras.StatelessScope` these only change the values that the scope maps. The
    optimizer given is left as it is. A learning rate that is a variable is read from
    it at every step.

    The slots that hold second moments are kept at 1e-30 or more, so that derivatives
    are finite where a gradient was exactly 0.

    Args:
        optimizer: A Keras optimizer, or a `TunedOptimizer`.
        weights: List of tensors or variables that give shapes and dtypes.

    Raises:
        ValueError: If the optimizer does what is not a function of a gradient: moving
            averages of the weights, gradient accumulation, loss scaling.
    """

    def __init__(self, optimizer, weights):
        tuned = isinstance(optimizer, TunedOptimizer)
        self._tuned = optimizer if tuned else None
        self._original = optimizer.optimizer if tuned else optimizer
        _check(self._original)
        # What is created here only gives the scope shapes, names and first values. A
        # `tf.function` can create no variables, not even in an `init_scope`, and needs
        # none.
        with tf.init_scope(), tf.variable_creator_scope(_constant):
            config = optimizer.config if tuned else self._original.get_config()
            self._copy = _pure_copy(self._original, config)
            rate = self._copy._learning_rate
            self._set = self._replace_tuned(weights[0].dtype) if tuned else {}
            self._weights = [
                _shadow(w, i, self._original) for i, w in enumerate(weights)
            ]
            self._copy.build(self._weights)
        apart = [rate, *self._set.values()]
        self._slots = [
            v for v in self._copy.variables if not any(v is a for a in apart)
        ]

    def _replace_tuned(self, dtype):
        variables = {}
        for name in self._tuned.functions:
            variables[name] = _Replaced(1.0, dtype=dtype, trainable=False)
            if name == "learning_rate":
                self._copy._learning_rate = variables[name]
            else:
                setattr(self._copy, name, variables[name])
        return variables

    def initial_state(self):
        """The slots as freshly built, a list; the first is the number of steps."""
        return [tf.identity(slot.value) for slot in self._slots]

    def current_state(self):
        """The slots as they are in the optimizer given; fresh if it is not built.

        Raises:
            ValueError: If it was built for other weights.
        """
        if not self._original.built:
            return self.initial_state()
        rate = self._original._learning_rate
        slots = [v for v in self._original.variables if v is not rate]
        shapes = [tuple(v.shape) for v in slots]
        expected = [tuple(v.shape) for v in self._slots]
        if shapes != expected:
            raise ValueError(
                "`optimizer` was built for other weights: its slots have the shapes "
                f"{shapes}, and those of the weights given are {expected}."
            )
        return [tf.convert_to_tensor(v.value) for v in slots]

    def __call__(self, gradients, weights, state, hyperparameters=None):
        """One step.

        Args:
            gradients: List of tensors.
            weights: List of tensors.
            state: List of tensors, as `initial_state` gives it.
            hyperparameters: λ as the functions of a `TunedOptimizer` expect it.

        Returns:
            Weights and state after the step, two lists.
        """
        floored = [_floored(s, v) for s, v in zip(state, self._slots, strict=True)]
        values = [
            *zip(self._weights, weights, strict=True),
            *zip(self._slots, floored, strict=True),
            *self._settings(state[0], hyperparameters),
        ]
        with keras.StatelessScope(state_mapping=values) as scope:
            self._copy.apply(gradients, self._weights)
        return (
            [scope.get_current_value(v) for v in self._weights],
            [scope.get_current_value(v) for v in self._slots],
        )

    def _settings(self, iterations, hyperparameters):
        """Pairs of variable and value of what is not a slot."""
        settings = []
        rate = self._original._learning_rate
        if isinstance(rate, keras.Variable) and "learning_rate" not in self._set:
            settings.append((self._copy._learning_rate, rate.value))
        if self._tuned is not None:
            step = tf.cast(iterations, tf.int32)
            for name, value in self._tuned.values(hyperparameters, step).items():
                variable = self._set[name]
                settings.append((variable, _scalar(value, name, variable.dtype)))
        return settings


class _Pure(keras.optimizers.Optimizer):
    """Keras's own updates, in place of the TensorFlow backend's.

    As a last base class it comes after the classes of an optimizer, which may extend
    them, and before the backend's.
    """

    assign = BaseOptimizer.assign
    assign_add = BaseOptimizer.assign_add
    assign_sub = BaseOptimizer.assign_sub
    add_variable_from_reference = BaseOptimizer.add_variable_from_reference
    _var_key = BaseOptimizer._var_key
    _backend_update_step = BaseOptimizer._backend_update_step
    _apply_weight_decay = BaseOptimizer._apply_weight_decay

    def _use_weight_decay(self, variable):
        return variable.decays

    def _clip_gradients(self, grads):
        """As Keras, but with derivatives also where all gradients are 0."""
        if not self.global_clipnorm:
            return super()._clip_gradients(grads)
        squares = tf.add_n([tf.reduce_sum(tf.square(g)) for g in grads])
        norm = tf.sqrt(tf.maximum(squares, tf.cast(_LEAST_SQUARE, squares.dtype)))
        limit = tf.cast(self.global_clipnorm, norm.dtype)
        return [g * (limit / tf.maximum(norm, limit)) for g in grads]


class _Replaced(keras.Variable):
    """A number of the optimizer that a scope gives a tensor for.

    Keras asks `if self.momentum != 0` to know whether momentum is wanted: it is.
    """

    def __ne__(self, other):
        return True

    def __gt__(self, other):
        return True

    def __bool__(self):
        return True

    __hash__ = keras.Variable.__hash__


def _pure_copy(optimizer, config):
    kind = type(optimizer)
    # Schedules are shared, not copied; they have no state.
    rate = optimizer._learning_rate
    config = {**config, "learning_rate": 1.0}
    copy = type(kind.__name__, (kind, _Pure), {}).from_config(config)
    if not isinstance(rate, keras.Variable):
        copy.learning_rate = rate
    return copy


def _constant(next_creator, **kwargs):
    value = kwargs["initial_value"]
    value = value() if callable(value) else value
    return tf.convert_to_tensor(value, kwargs["dtype"])


def _shadow(weight, index, optimizer):
    shadow = keras.Variable(
        "zeros",
        shape=weight.shape,
        dtype=weight.dtype,
        name=f"weight_{index}",
    )
    shadow.constraint = getattr(weight, "constraint", None)
    shadow.decays = True
    if hasattr(optimizer, "_exclude_from_weight_decay"):
        if tf.is_tensor(weight) and not isinstance(weight, keras.Variable):
            raise ValueError(
                "`exclude_from_weight_decay` names variables, and the weights are "
                "tensors. Put weight decay into the inner loss instead."
            )
        shadow.decays = optimizer._use_weight_decay(weight)
    return shadow


def _check(optimizer):
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "A LossScaleOptimizer cannot be differentiated: it skips steps. Give its "
            "inner optimizer."
        )
    reasons = {
        "use_ema": "averages the weights over steps",
        "gradient_accumulation_steps": "adds up the gradients of several steps",
        "loss_scale_factor": "expects the gradients of a scaled loss",
    }
    for name, reason in reasons.items():
        value = getattr(optimizer, name, None)
        if value:
            raise ValueError(
                f"An optimizer that {reason} cannot be differentiated step by step. "
                f"Received: {name}={value!r}"
            )


def _floored(value, slot):
    if not slot.name.endswith(_SECOND_MOMENTS):
        return value
    return tf.maximum(value, tf.cast(_LEAST_SQUARE, value.dtype))


def _scalar(value, name, dtype):
    value = tf.cast(value, dtype)
    if value.shape.rank:
        raise ValueError(
            f"The function for `{name}` must return a scalar. "
            f"Received: a tensor of shape {value.shape}"
        )
    return value
