"""What plain functions are given to differentiate must be real numbers."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from bilevel_tf.network.problem import Problem


def check_real(name: str, structure: Any) -> None:
    """Raise a `ValueError` unless a structure has tensors, all in floating point.

    Args:
        name: Name of the argument, for the error.
        structure: Structure of tensors, variables or numbers.
    """
    dtypes = [tf.convert_to_tensor(x).dtype for x in tf.nest.flatten(structure)]
    if not dtypes:
        raise ValueError(
            f"`{name}` must have at least one tensor to differentiate by. "
            f"Received: {name}={structure!r}"
        )
    for dtype in dtypes:
        if not dtype.is_floating:
            raise ValueError(
                f"`{name}` must be floating-point tensors, such as tf.constant(1.0). "
                f"Received: a tensor of dtype {dtype.name}"
            )


@contextlib.contextmanager
def explain_dtypes(problem: Problem) -> Iterator[None]:
    """Explain an error in the losses if weights and hyperparameters differ in dtype."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
        of_weights, of_hyperparameters = (
            sorted({x.dtype.name for x in tensors})
            for tensors in (problem.weights, problem.hyperparameters)
        )
        if of_weights == of_hyperparameters:
            raise
        raise ValueError(
            "`weights` and `hyperparameters` have different dtypes, and the losses "
            "failed. Give both in one dtype, or convert in the losses: "
            "tf.cast(h, w.dtype). "
            f"Received: weights of {', '.join(of_weights)}, hyperparameters of "
            f"{', '.join(of_hyperparameters)}. The error was: {error}"
        ) from error
