"""Private parts of Keras optimizers, and base classes with named hooks for them."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer

RateSource: TypeAlias = (
    keras.Variable
    | keras.optimizers.schedules.LearningRateSchedule
    | Callable[[], tf.Tensor]
)


def get_rate_source(optimizer: keras.optimizers.Optimizer) -> RateSource:
    """Return where the learning rate comes from: a variable, schedule or function.

    The public `learning_rate` returns the current value of a schedule or function.
    """
    return optimizer._learning_rate


def set_rate_source(
    optimizer: keras.optimizers.Optimizer, source: keras.Variable
) -> None:
    """Make an optimizer read its learning rate from another variable.

    The public setter assigns to the variable that is there.
    """
    optimizer._learning_rate = source


def set_iterations(optimizer: keras.optimizers.Optimizer, count: tf.Tensor) -> None:
    """Set the number of steps that an optimizer has taken."""
    optimizer._iterations.assign(count)


def track_variables(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable]
) -> None:
    """Make variables part of an optimizer, so that they are saved with it."""
    for variable in variables:
        optimizer._track_variable(variable)


def get_variable_index(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable | tf.Variable
) -> int:
    """Return the place of a variable among those that the optimizer is built for.

    Raises:
        KeyError: If the optimizer is not built for the variable.
    """
    return optimizer._get_variable_index(variable)


def knows_variable(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable | tf.Variable
) -> bool:
    """Whether a built optimizer is built for the variable."""
    return optimizer._var_key(variable) in optimizer._trainable_variables_indices


def excludes_from_decay(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether `exclude_from_weight_decay` has been called on the optimizer."""
    return hasattr(optimizer, "_exclude_from_weight_decay")


def decays_weight(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable | tf.Variable
) -> bool:
    """Whether the optimizer's weight decay, if it has any, includes the variable."""
    return optimizer._use_weight_decay(variable)


def copy_decay_exclusions(
    source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer
) -> None:
    """Exclude from the weight decay of `target` what that of `source` excludes.

    Variables excluded by name have their names compared later, in `target`.
    """
    for name, value in vars(source).items():
        if name.startswith("_exclude_from_weight_decay"):
            setattr(target, name, value)


def is_second_moment(slot: keras.Variable) -> bool:
    """Whether a slot of a built-in optimizer holds averages of squared gradients.

    Adam, RMSprop and their relatives take the square root of such a slot.
    """
    return slot.name.endswith(("_velocity", "_velocity_hat"))


class StatelessOptimizer(keras.optimizers.Optimizer):
    """A base class that makes `apply` work on tensors in a `keras.StatelessScope`.

    The TensorFlow backend replaces some of Keras's own updates by updates in place,
    for `tf.distribute`, and these pass a scope by. This class puts Keras's own back.
    Give it as the last base class, `class PureAdam(keras.optimizers.Adam,
    StatelessOptimizer)`: it then comes after the optimizer's own methods, which may
    extend the updates, and before the backend's.
    """

    assign = BaseOptimizer.assign
    assign_add = BaseOptimizer.assign_add
    assign_sub = BaseOptimizer.assign_sub
    add_variable_from_reference = BaseOptimizer.add_variable_from_reference
    _var_key = BaseOptimizer._var_key
    _backend_update_step = BaseOptimizer._backend_update_step
    _apply_weight_decay = BaseOptimizer._apply_weight_decay

    def decays(self, variable: keras.Variable) -> bool:
        """Whether weight decay includes the variable. A subclass may override it."""
        return super()._use_weight_decay(variable)

    def clip_globally(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Clip all gradients by `global_clipnorm`. A subclass may override it."""
        return super()._clip_gradients(gradients)

    def _use_weight_decay(self, variable):
        return self.decays(variable)

    def _clip_gradients(self, grads):
        if self.global_clipnorm:
            return self.clip_globally(grads)
        return super()._clip_gradients(grads)


class HookedOptimizer(keras.optimizers.Optimizer):
    """A base class of optimizers that look at gradients and decay weights themselves.

    A subclass implements `see_gradients`, and subtracts weight decay in its
    `update_step` if it has any: Keras's own weight decay is off.
    """

    def see_gradients(self, pairs: list[tuple[tf.Tensor, tf.Variable]]) -> None:
        """Called in every step, before the first weight or slot is updated.

        Args:
            pairs: Gradients and their variables. The gradients are summed over
                replicas, unscaled, accumulated and clipped.
        """
        raise NotImplementedError

    def _all_reduce_sum_gradients(self, grads_and_vars):
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        self.see_gradients(pairs)
        return pairs

    def _apply_weight_decay(self, variables):
        pass
