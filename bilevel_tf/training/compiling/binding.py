"""Hyperparameters that parts of a model refer to, bound to the space of the model."""

from collections.abc import Iterable
from typing import Any

import keras

from bilevel_tf.hyperparameters.references import references
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.regularizers.norms import NormPenalty


def bind_references(holders: Iterable[Any], space: HyperparameterSpace) -> None:
    """Bind all references to hyperparameters that layers or other objects hold.

    Args:
        holders: The layers or objects.
        space: The space of the model.

    Raises:
        ValueError: If a reference is into another space or its name is unknown; it
            names the layer.
    """
    for holder in holders:
        for reference in references(holder):
            try:
                reference.bind(space)
            except ValueError as error:
                if not isinstance(holder, keras.Layer):
                    raise
                held_by = f"{type(holder).__name__} '{holder.name}'"
                raise ValueError(f"{held_by}: {error}") from None


def separate_output_penalties(layers: Iterable[keras.Layer]) -> None:
    """Tell penalties on the outputs of layers that they are on outputs.

    The same object may penalise a weight as well, so that each layer gets a copy.
    """
    for layer in layers:
        if isinstance(layer.activity_regularizer, NormPenalty):
            layer.activity_regularizer = layer.activity_regularizer.for_outputs()


def check_factor_shapes(variables: list[keras.Variable]) -> None:
    """Raise a `ValueError` if a tuned penalty factor does not fit its weight."""
    for variable in variables:
        for factor in references(variable.regularizer):
            target = tuple(variable.shape)
            if not factor.broadcasts_to(target):
                raise ValueError(
                    f"Hyperparameter '{factor.name}' of shape {factor.scale.shape} "
                    f"cannot be the penalty factor of '{variable.path}' of shape "
                    f"{target}: give it shape (), {target}, or one that broadcasts to "
                    f"{target}. Received: shape {factor.scale.shape}"
                )
