"""Optimizers whose learning rate, momentum, … are hyperparameters of a space."""

import tensorflow as tf

from bilevel_tf.autodiff.tuned_optimizer import TunedOptimizer


def following(optimizer, space):
    """The Keras optimizer of a `TunedOptimizer`, its numbers following the space.

    Args:
        optimizer: A `TunedOptimizer`; anything else is returned as it is.
        space: The `HyperparameterSpace`.
    """
    if not isinstance(optimizer, TunedOptimizer):
        return optimizer
    for reference in optimizer.references():
        reference.bind(space)
    for name in optimizer.functions:
        setattr(optimizer.optimizer, name, _Current(optimizer, name, space))
    return optimizer.optimizer


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
