"""The hyperparameters that layers refer to, bound to the space of their model."""

import keras

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.layers.hyper.hyper_layer import references


def bind_layers(layers: list[keras.Layer], space: HyperparameterSpace) -> None:
    """Bind all references that layers or their regularizers hold.

    Raises:
        ValueError: If a reference is into another space or its name is unknown.
    """
    for layer in layers:
        for reference in _find_references(layer):
            reference.bind(space)


def _find_references(layer: keras.Layer) -> list[Hyperparameter]:
    if hasattr(layer, "hyperparameters") and callable(layer.hyperparameters):
        return layer.hyperparameters()
    holders = [layer, *(v for k, v in vars(layer).items() if k.endswith("regularizer"))]
    return [reference for holder in holders for reference in references(holder)]


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
