"""Weights of the training examples that are hyperparameters themselves.

While these are tuned, a batch has the numbers of its examples in place of sample
weights, and the step looks up the weights of these numbers.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.methods.best_response.best_response import BestResponse


def number_examples(
    reference: Hyperparameter, data: tuple, model: keras.Model
) -> tuple[Any, Any, np.ndarray]:
    """Put the numbers of the training examples in place of their weights.

    Args:
        reference: The `Hyperparameter` given as `sample_weight`.
        data: x, y and `None`, as given to `fit`.
        model: The compiled `BilevelModel`.

    Returns:
        x, y and the numbers, an int32 array `[n]`.

    Raises:
        TypeError: If the data are not arrays: the examples of a data set have no
            numbers.
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
            "negative. Use bilevel_tf.Positive, or bilevel_tf.Uniform from 0. "
            f"Received: a scale whose lower end is {reference.scale.ends[0]}"
        )
    if model.objective.judged_on != "validation":
        raise ValueError(
            f"{type(model.objective).__name__} judges hyperparameters by the training "
            f"data, so that it cannot tune the weights '{name}' of these data. Use "
            "bilevel_tf.objectives.ValidationLoss(). Received: "
            f"objective={type(model.objective).__name__}"
        )
    if isinstance(model.method, BestResponse):
        raise ValueError(
            f"{type(model.method).__name__} would fit a response to {count} example "
            "weights. Compile the model with a method that differentiates training, "
            "such as bilevel_tf.methods.T1T2(). Received: "
            f"method={type(model.method).__name__}"
        )
    return x, y, np.arange(count, dtype="int32")


def look_up_weights(reference: Hyperparameter | None, sample_weight: Any) -> Any:
    """Return the weights of a batch's examples, `[batch]`, or `None`.

    Args:
        reference: The `Hyperparameter` that holds the weights of all examples, or
            `None` if weights are not tuned.
        sample_weight: Numbers from `number_examples`, ordinary weights, or `None`.
            Ordinary weights are returned as they are.
    """
    if reference is None or sample_weight is None:
        return sample_weight
    # Keras repeats the numbers for every output.
    numbers = keras.tree.flatten(sample_weight)[0]
    if not tf.as_dtype(numbers.dtype).is_integer:
        return sample_weight
    return tf.gather(reference.value(), numbers)


def find_reference(sample_weight: Any) -> Hyperparameter | None:
    """Return the hyperparameter given as `sample_weight`, or `None`."""
    return sample_weight if isinstance(sample_weight, Hyperparameter) else None


def forget(model: keras.Model, sample_weight: Any) -> None:
    """Make a model take sample weights as they are, after a `fit` that tuned them.

    Args:
        model: The compiled `BilevelModel`.
        sample_weight: As given to `train_on_batch`.

    Raises:
        TypeError: If it is a hyperparameter.
    """
    if (reference := find_reference(sample_weight)) is not None:
        raise TypeError(
            "`sample_weight` must be numbers here: which of the tuned weights belong "
            "to a batch only `fit` knows. "
            f"Received: sample_weight='{reference.name}'"
        )
    if model.example_weights is not None:
        # The traced step has the old way of finding weights built in: trace anew.
        model.example_weights, model.train_function = None, None
