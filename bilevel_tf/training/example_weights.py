"""Weights of the training examples that are hyperparameters themselves."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.methods.best_response.best_response import BestResponse


def numbered(reference, data, model):
    """Training data with the examples' numbers in place of their weights.

    Args:
        reference: The `Hyperparameter` given as `sample_weight`.
        data: x, y and `None`, as given to `fit`.
        model: The compiled `BilevelModel`.

    Returns:
        x, y and the numbers, an int32 array `[n]`.

    Raises:
        TypeError: If the data are not arrays, whose examples have no numbers.
        ValueError: If there is not one weight per example, a weight might become
            negative, the method fits a best response, or the objective judges by
            the training data themselves.
    """
    x, y, _ = data
    name = reference.name
    if not all(hasattr(array, "shape") for array in keras.tree.flatten(x)):
        raise TypeError(
            f"With hyperparameter '{name}' as `sample_weight`, `x` must be arrays. "
            f"Received: x of type {type(x).__name__}"
        )
    count = len(keras.tree.flatten(x)[0])
    if reference.scale.shape != (count,):
        raise ValueError(
            f"Hyperparameter '{name}' is given as `sample_weight` and must have one "
            f"value per training example, shape ({count},). "
            f"Received: shape {reference.scale.shape}"
        )
    if reference.scale.ends[0] < 0:
        raise ValueError(
            f"Hyperparameter '{name}' is given as `sample_weight` and must not become "
            f"negative. Received: one that can be anything above "
            f"{reference.scale.ends[0]}"
        )
    if model.objective.judged_on != "validation":
        raise ValueError(
            f"{type(model.objective).__name__} judges by the training data, whose "
            f"weights '{name}' cannot be tuned by it. Use "
            "bilevel_tf.objectives.ValidationLoss()."
        )
    if isinstance(model.method, BestResponse):
        raise ValueError(
            f"{type(model.method).__name__} would fit a response to {count} example "
            "weights. Compile the model with a method that differentiates training, "
            "such as bilevel_tf.methods.T1T2()."
        )
    return x, y, np.arange(count, dtype="int32")


def in_force(reference, sample_weight):
    """The weights of a batch's examples, `[batch]`.

    Args:
        reference: The `Hyperparameter` that has them all, or `None`.
        sample_weight: Numbers from `numbered`, ordinary weights, or `None`.
    """
    if reference is None or sample_weight is None:
        return sample_weight
    if not tf.as_dtype(sample_weight.dtype).is_integer:
        return sample_weight
    return tf.gather(reference.value(), sample_weight)


def reference_in(sample_weight):
    """The hyperparameter given as `sample_weight`, or `None`."""
    return sample_weight if isinstance(sample_weight, Hyperparameter) else None
