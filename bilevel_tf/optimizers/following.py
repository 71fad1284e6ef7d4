"""Optimizers whose numbers follow a space, and copies that follow another optimizer."""

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.optimizers.tuned import TunedOptimizer


def follow_space(
    optimizer: keras.optimizers.Optimizer | TunedOptimizer, space: HyperparameterSpace
) -> keras.optimizers.Optimizer:
    """Make the numbers of a `TunedOptimizer` follow a space from now on.

    Args:
        optimizer: A `TunedOptimizer`. Anything else is returned as it is.
        space: The space whose current values the optimizer's numbers are computed
            from, in every step.

    Returns:
        The Keras optimizer inside the `TunedOptimizer`. It is changed in place.
    """
    if not isinstance(optimizer, TunedOptimizer):
        return optimizer
    for reference in references(optimizer):
        reference.bind(space)
    for name in optimizer.functions:
        setattr(optimizer.optimizer, name, _Current(optimizer, name, space))
    return optimizer.optimizer


def copy_beside(
    optimizer: keras.optimizers.Optimizer | TunedOptimizer,
    variables: list[keras.Variable],
    weights: list[keras.Variable],
    space: HyperparameterSpace,
) -> keras.optimizers.Optimizer | TunedOptimizer:
    """Return a copy of an optimizer that trains other variables beside the weights.

    The copy has slots of its own, and always uses the current learning rate of the
    optimizer that it was copied from.

    Args:
        optimizer: The optimizer of the weights.
        variables: The variables that the copy will train. It is built for them.
        weights: The weight that each variable stands for, in the same order. A
            variable is excluded from weight decay if its weight is.
        space: The space that the numbers of a `TunedOptimizer` follow.

    Returns:
        A Keras optimizer, or a `TunedOptimizer` if `optimizer` is one.
    """
    tuned = optimizer if isinstance(optimizer, TunedOptimizer) else None
    main: keras.optimizers.Optimizer = optimizer if tuned is None else tuned.optimizer
    config = dict(main.get_config() if tuned is None else tuned.config)
    if "learning_rate" in config:
        config["learning_rate"] = _get_followed_rate(main)
    copy = type(main).from_config(config)
    result = copy if tuned is None else TunedOptimizer(copy, **tuned.functions)
    follow_space(result, space)
    if _keras.excludes_from_decay(main):
        pairs = zip(variables, weights, strict=True)
        kept = [v for v, w in pairs if not _keras.decays_weight(main, w.value)]
        copy.exclude_from_weight_decay(var_list=kept)
    copy.build(variables)
    return result


def _get_followed_rate(optimizer):
    """Return an optimizer's schedule, or a function that reads its current rate."""
    source = _keras.get_rate_source(optimizer)
    if isinstance(source, keras.optimizers.schedules.LearningRateSchedule):
        return source

    def read_learning_rate():
        return tf.convert_to_tensor(optimizer.learning_rate)

    return read_learning_rate


class _Current:
    """A number of an optimizer that is read from a space in every step.

    Keras calls it if it is the learning rate, and casts it if it is another number.
    Keras also asks `if self.momentum != 0` to decide whether to use momentum, and the
    answer must be yes.
    """

    def __init__(self, optimizer, name, space):
        self._optimizer, self._name, self._space = optimizer, name, space

    def __call__(self):
        steps = tf.cast(self._optimizer.optimizer.iterations.value, tf.int32)
        return self._optimizer.values(self._space.current(), steps)[self._name]

    def __tf_tensor__(self, dtype=None, name=None):
        return tf.convert_to_tensor(self(), dtype)

    def assign(self, value):
        """Refuse another value, which Keras's setter of the learning rate gives."""
        raise TypeError(
            f"`{self._name}` of the optimizer is tuned, and nothing else can set it: "
            "leave out callbacks that do, such as LearningRateScheduler and "
            "ReduceLROnPlateau, or do not tune it. "
            f"Received: {self._name}={float(value)}"
        )

    def __ne__(self, other):
        return True

    __hash__ = object.__hash__
