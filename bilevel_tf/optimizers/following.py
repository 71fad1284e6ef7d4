"""Optimizers that follow: the hyperparameters of a space, or another optimizer."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.references import references
from bilevel_tf.optimizers.tuned import TunedOptimizer


def following(optimizer, space):
    """The Keras optimizer of a `TunedOptimizer`, its numbers following the space.

    Args:
        optimizer: A `TunedOptimizer`; anything else is returned as it is.
        space: The `HyperparameterSpace`.
    """
    if not isinstance(optimizer, TunedOptimizer):
        return optimizer
    for reference in references(optimizer):
        reference.bind(space)
    for name in optimizer.functions:
        setattr(optimizer.optimizer, name, _Current(optimizer, name, space))
    return optimizer.optimizer


def beside(optimizer, variables, weights, space):
    """A copy of an optimizer, with slots of its own, that keeps to its learning rate.

    Args:
        optimizer: What trains the weights, a Keras optimizer or a `TunedOptimizer`.
        variables: What the copy is to train; it is built for them.
        weights: For each of these the weight that it stands for: what is excluded from
            weight decay stays so.
        space: The `HyperparameterSpace`; of no use to a Keras optimizer.

    Returns:
        A Keras optimizer or a `TunedOptimizer`, as `optimizer` is.
    """
    tuned = isinstance(optimizer, TunedOptimizer)
    main = optimizer.optimizer if tuned else optimizer
    config = dict(optimizer.config if tuned else main.get_config())
    if "learning_rate" in config:
        config["learning_rate"] = _rate_of(main)
    copy = type(main).from_config(config)
    result = TunedOptimizer(copy, **optimizer.functions) if tuned else copy
    following(result, space)
    if hasattr(main, "_exclude_from_weight_decay"):
        pairs = zip(variables, weights, strict=True)
        kept = [v for v, w in pairs if not main._use_weight_decay(w.value)]
        copy.exclude_from_weight_decay(var_list=kept)
    copy.build(variables)
    return result


def _rate_of(optimizer):
    """The schedule of an optimizer, or a function that reads its current rate."""
    schedules = keras.optimizers.schedules.LearningRateSchedule
    if isinstance(optimizer._learning_rate, schedules):
        return optimizer._learning_rate

    def learning_rate():
        return tf.convert_to_tensor(optimizer.learning_rate)

    return learning_rate


class _Current:
    """A number of an optimizer that is read from a space at every step.

    Keras calls a learning rate, casts other numbers, and asks `if self.momentum != 0`
    to know whether momentum is wanted.
    """

    def __init__(self, optimizer, name, space):
        self._optimizer, self._name, self._space = optimizer, name, space

    def __call__(self):
        steps = tf.cast(self._optimizer.optimizer.iterations.value, tf.int32)
        return self._optimizer.values(self._space.current(), steps)[self._name]

    def __tf_tensor__(self, dtype=None, name=None):
        return tf.convert_to_tensor(self(), dtype)

    def __ne__(self, other):
        return True

    __hash__ = object.__hash__
