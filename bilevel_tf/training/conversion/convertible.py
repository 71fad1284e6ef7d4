"""Which Keras models can be converted."""

import warnings
from typing import Any

import keras

from bilevel_tf import _keras
from bilevel_tf.network.responding_network import RespondingNetwork
from bilevel_tf.training.conversion import cloning

_OWN_TRAINING = (
    "train_step", "test_step", "predict_step", "compute_loss", "compute_metrics",
)  # fmt: skip


def check_convertible(model: Any) -> None:
    """Check that `from_keras` can convert a model.

    Args:
        model: What it was given.

    Raises:
        ValueError: If it is not a Sequential or functional model that is built, or is
            a `BilevelModel`.

    Warns:
        UserWarning: If the model has training steps of its own.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Sequential or functional Keras model. Received: "
            f"model={model!r}"
        )
    name = model.name
    if isinstance(model, RespondingNetwork):
        raise ValueError(
            f"Model '{name}' is a BilevelModel already. To tune other arguments "
            "of it, convert what model.to_keras() returns. Received: model of class "
            f"{type(model).__name__}"
        )
    if not _keras.is_graph(model) and not isinstance(model, keras.Sequential):
        raise ValueError(
            "Only Sequential and functional models can be converted. Wrap a model "
            "with a `call` of its own: BilevelModel(inputs, model(inputs), "
            "hyperparameters=hp) with inputs = keras.Input(...). Received: model "
            f"'{model.name}' of class {type(model).__name__}"
        )
    if not _keras.is_graph(model):
        raise ValueError(
            "`model` must be built before it is converted: give it an Input, or call "
            f"it on data once. Received: model '{model.name}', which is not built"
        )
    if not cloning.is_transparent(model):
        raise ValueError(
            f"Model '{model.name}' has a `call` and a constructor of its own, and its "
            "graph is not all that it does. Wrap it: BilevelModel(inputs, "
            "model(inputs), hyperparameters=hp) with inputs = keras.Input(...). "
            f"Received: model of class {type(model).__name__}"
        )
    lost = [
        name
        for name in _OWN_TRAINING
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    if lost:
        warnings.warn(
            f"{type(model).__name__} '{model.name}' has its own {', '.join(lost)}, "
            "which from_keras leaves behind: a BilevelModel has its own steps.",
            stacklevel=4,
        )
