"""Keras optimizers as pure functions, through which one can differentiate."""

import weakref
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.optimizers.differentiable import (
    check_kind,
    check_slope,
    is_built_in,
    keep_off_zero,
    offsets_of,
)
from bilevel_tf.optimizers.tuned import TunedOptimizer, read_config

# Adam takes the square root of its second moment. Its derivative is infinite at 0, the
# value for a weight that has had no gradient yet, and 0 · ∞ is NaN under XLA and in
# forward mode. This value is too small to matter beside `epsilon`, and large enough
# that the inverse of its root is finite.
_LEAST_SQUARE = 1e-30

# Classes of users' own whose steps have been held against differences of them.
_PROBED: weakref.WeakSet[type] = weakref.WeakSet()


class FunctionalOptimizer:
    """One step of a Keras optimizer as a function of tensors, without side effects.

    It runs `apply` of a private copy of the optimizer inside a `keras.StatelessScope`,
    so that the optimizer given stays as it is. If the learning rate of the optimizer
    given is a variable, every step uses the variable's current value.

    Slots that hold second moments are kept at 1e-30 or more, so that derivatives are
    finite even if a gradient was exactly 0.

    Args:
        optimizer: A Keras optimizer, or a `TunedOptimizer`.
        weights: List of tensors or variables. Only shapes, dtypes, constraints and
            exclusions from weight decay are read from them.
        probes: Whether two steps of an optimizer that is not one of Keras are held
            against differences of them, once for every class and eagerly only.
            Defaults to `True`.

    Raises:
        ValueError: If a step of the optimizer is not a smooth function of a gradient
            and the slots: if it goes along a sign, averages weights over steps,
            accumulates gradients or scales the loss. Also if it excludes weights from
            weight decay, and `weights` are tensors, which have no name.

    Example:

    >>> from bilevel_tf.optimizers.functional import FunctionalOptimizer
    >>> weights = [tf.constant([1.0, 2.0])]
    >>> step = FunctionalOptimizer(keras.optimizers.SGD(0.1), weights)
    >>> state = step.initial_state()
    >>> new_weights, new_state = step([tf.constant([1.0, 1.0])], weights, state)
    >>> new_weights[0].numpy()
    array([0.9, 1.9], dtype=float32)
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer | TunedOptimizer,
        weights: list[tf.Tensor | keras.Variable],
        probes: bool = True,
    ):
        tuned = optimizer if isinstance(optimizer, TunedOptimizer) else None
        self._tuned = tuned
        self._original: keras.optimizers.Optimizer = (
            optimizer if tuned is None else tuned.optimizer
        )
        check_kind(self._original)
        if probes and _needs_probe(self._original):
            _check_slope(self._original)
        self._offsets = offsets_of(self._original)
        # A `tf.function` may create no variables, not even in an `init_scope`. Tensors
        # do: the scope of a step reads only their shapes, names and first values.
        config = read_config(self._original) if tuned is None else tuned.config
        with tf.init_scope(), tf.variable_creator_scope(_create_constant):
            self._copy = _copy_as_pure(self._original, config)
            rate = _keras.get_rate_source(self._copy)
            self._set = self._replace_tuned(tuned, weights[0].dtype) if tuned else {}
            self._weights = [
                _make_shadow(w, i, self._original) for i, w in enumerate(weights)
            ]
            self._copy.build(self._weights)
        no_slots = [rate, *self._set.values()]
        self._slots = [
            v for v in self._copy.variables if not any(v is other for other in no_slots)
        ]

    def _replace_tuned(self, tuned, dtype):
        """Put variables in place of the tuned numbers; return them by name."""
        variables = {}
        for name in tuned.functions:
            variables[name] = _Replaced(1.0, dtype=dtype, trainable=False)
            if name == "learning_rate":
                _keras.set_rate_source(self._copy, variables[name])
            else:
                setattr(self._copy, name, variables[name])
        return variables

    def initial_state(self) -> list[tf.Tensor]:
        """Return the slots of a new optimizer; the first is the number of steps."""
        return [tf.identity(slot.value) for slot in self._slots]

    def current_state(self) -> list[tf.Tensor]:
        """Return the slots of the optimizer given; new ones if it is not built.

        Raises:
            ValueError: If it was built for other weights.
        """
        if not self._original.built:
            return self.initial_state()
        rate = _keras.get_rate_source(self._original)
        slots = [v for v in self._original.variables if v is not rate]
        shapes = [tuple(v.shape) for v in slots]
        expected = [tuple(v.shape) for v in self._slots]
        if shapes != expected:
            raise ValueError(
                "`optimizer` was built for other weights than those given, whose slots "
                f"have the shapes {expected}. Make a new optimizer. "
                f"Received: an optimizer with slots of shapes {shapes}"
            )
        return [tf.convert_to_tensor(v.value) for v in slots]

    def __call__(
        self,
        gradients: list[tf.Tensor],
        weights: list[tf.Tensor],
        state: list[tf.Tensor],
        hyperparameters: Any = None,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Take one step.

        Args:
            gradients: List of tensors with the shapes of the weights.
            weights: List of tensors.
            state: List of tensors, as `initial_state` returns it.
            hyperparameters: λ in the structure that the functions of a
                `TunedOptimizer` expect. A Keras optimizer needs none.

        Returns:
            The weights and the state after the step, two lists.
        """
        gradients = keep_off_zero(gradients, self._offsets[0])
        weights = keep_off_zero(weights, self._offsets[1])
        floored = [_floor(s, v) for s, v in zip(state, self._slots, strict=True)]
        values = [
            *zip(self._weights, weights, strict=True),
            *zip(self._slots, floored, strict=True),
            *self._pair_settings(state[0], hyperparameters),
        ]
        with keras.StatelessScope(state_mapping=values) as scope:
            self._copy.apply(gradients, self._weights)
        return (
            [scope.get_current_value(v) for v in self._weights],
            [scope.get_current_value(v) for v in self._slots],
        )

    def _pair_settings(self, iterations, hyperparameters):
        """Return pairs of variable and value for learning rate and tuned numbers."""
        settings = []
        rate = _keras.get_rate_source(self._original)
        if isinstance(rate, keras.Variable) and "learning_rate" not in self._set:
            settings.append((_keras.get_rate_source(self._copy), rate.value))
        if self._tuned is not None:
            step = tf.cast(iterations, tf.int32)
            for name, value in self._tuned.values(hyperparameters, step).items():
                variable = self._set[name]
                settings.append((variable, _cast_scalar(value, name, variable.dtype)))
        return settings


class _Pure(_keras.StatelessOptimizer):
    """What the class of the private copy has beside that of the optimizer given."""

    def decays(self, variable):
        return variable.decays

    def clip_globally(self, gradients):
        """Clip as Keras does, with finite derivatives even if all gradients are 0."""
        squares = tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients])
        norm = tf.sqrt(tf.maximum(squares, tf.cast(_LEAST_SQUARE, squares.dtype)))
        limit = tf.cast(self.global_clipnorm, norm.dtype)
        return [g * (limit / tf.maximum(norm, limit)) for g in gradients]


class _Replaced(keras.Variable):
    """A number of the optimizer whose value comes from the scope of a step.

    Keras asks `if self.momentum != 0` to decide whether to use momentum, and
    `if self.clipnorm > 0` likewise. The answer must be yes.
    """

    def __ne__(self, other):
        return True

    def __gt__(self, other):
        return True

    def __bool__(self):
        return True

    __hash__ = keras.Variable.__hash__


def _copy_as_pure(optimizer, config):
    kind = type(optimizer)
    config = {**config, "learning_rate": 1.0}
    pure: Any = type(kind.__name__, (kind, _Pure), {})
    copy = pure.from_config(config)
    # A schedule has no state, so that both may use the same one.
    source = _keras.get_rate_source(optimizer)
    if not isinstance(source, keras.Variable):
        copy.learning_rate = source
    return copy


def _create_constant(next_creator, **kwargs):
    """Return a tensor in place of a variable, for `tf.variable_creator_scope`."""
    value = kwargs["initial_value"]
    value = value() if callable(value) else value
    return tf.convert_to_tensor(value, kwargs["dtype"])


def _make_shadow(weight, index, optimizer):
    """Return a variable that stands for a weight in the private copy."""
    shadow = keras.Variable(
        "zeros",
        shape=weight.shape,
        dtype=weight.dtype,
        name=f"weight_{index}",
    )
    shadow.constraint = getattr(weight, "constraint", None)
    shadow.decays = True
    if _keras.excludes_from_decay(optimizer):
        if tf.is_tensor(weight) and not isinstance(weight, keras.Variable):
            raise ValueError(
                "An optimizer on which `exclude_from_weight_decay` was called needs "
                "weights that are variables, by whose names or identity it excludes "
                "them. Put the weight decay into the inner loss instead. "
                f"Received: a tensor of shape {weight.shape} as weight {index}"
            )
        shadow.decays = _keras.decays_weight(optimizer, weight)
    return shadow


def _needs_probe(optimizer):
    """Whether to run steps of this class first; numbers are at hand only eagerly."""
    unknown = not is_built_in(optimizer) and type(optimizer) not in _PROBED
    return unknown and tf.executing_eagerly()


def _check_slope(optimizer):
    """Hold two steps of a user's own optimizer against differences of them."""
    dtype = keras.backend.floatx()
    step = FunctionalOptimizer(optimizer, [tf.zeros([2, 2], dtype)], probes=False)

    def take_two(first, second, weight):
        weights, state = step([first], [weight], step.initial_state())
        return step([second], weights, state)[0][0]

    check_slope(optimizer, take_two)
    _PROBED.add(type(optimizer))


def _floor(value, slot):
    if not _keras.is_second_moment(slot):
        return value
    return tf.maximum(value, tf.cast(_LEAST_SQUARE, value.dtype))


def _cast_scalar(value, name, dtype):
    value = tf.cast(value, dtype)
    if value.shape.rank:
        raise ValueError(
            f"The function for `{name}` must return a scalar. "
            f"Received: a tensor of shape {value.shape}"
        )
    return value
