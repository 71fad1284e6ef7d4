"""Outer steps as functions of an iterator, on one device or on several."""

from collections.abc import Callable, Iterable, Iterator

import keras
import tensorflow as tf

from bilevel_tf import _keras


def distribute_outer(model: keras.Model, feed: tf.data.Dataset) -> Iterable:
    """Return the data set that outer steps draw from, distributed if they are.

    Args:
        model: The compiled `BilevelModel`.
        feed: The batches for outer steps.
    """
    if _takes_whole_batches(model):
        return feed
    return model.distribute_strategy.experimental_distribute_dataset(feed)


def make_outer_function(model: keras.Model) -> Callable[[Iterator], dict]:
    """Return the function that takes one outer step and returns its logs.

    Solvers and trajectories need products and steps on the whole batch, inside loops,
    in which replicas cannot add up anything. Under a strategy the first device
    therefore takes such an outer step alone, and what it assigns goes to all devices.
    Methods that `splits_outer_batches` share the step among all replicas.

    Args:
        model: The compiled `BilevelModel`.
    """
    if not _takes_whole_batches(model):
        return _keras.make_step_function(model, model.stacked_outer_step)
    step = model.stacked_outer_step
    if not model.run_eagerly:
        step = tf.function(
            step, autograph=False, reduce_retracing=True, jit_compile=model.jit_compile
        )
    device = model.distribute_strategy.extended.worker_devices[0]

    def function(iterator):
        with _keras.leave_strategy(), tf.device(device):
            return step(next(iterator))

    return function


def _takes_whole_batches(model):
    return model.network.strategy is not None and not model.method.splits_outer_batches
