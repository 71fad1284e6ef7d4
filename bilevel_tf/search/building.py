"""The models that searches train: made anew each time, and checked."""

from collections.abc import Callable
from typing import Any

import keras

from bilevel_tf import _keras
from bilevel_tf.methods.method import Method
from bilevel_tf.objectives.validation_loss import ValidationLoss
from bilevel_tf.training.bilevel_model import BilevelModel


class Rebuild:
    """A function that makes models like a given one, compiled as it is.

    Weights are drawn anew, and hyperparameters start at their initial values.

    Args:
        model: The compiled `BilevelModel`.
    """

    def __init__(self, model: BilevelModel):
        self._config = keras.saving.serialize_keras_object(model)

    def __call__(self) -> BilevelModel:
        """Return a new model."""
        return keras.saving.deserialize_keras_object(self._config)


def as_builder(build: Any) -> Callable[[], BilevelModel]:
    """Return the function that builds the model.

    Args:
        build: Such a function, or a compiled `BilevelModel`.

    Raises:
        TypeError: If it is neither.
        ValueError: If the model is not compiled.
    """
    if isinstance(build, BilevelModel):
        _check_compiled(build)
        return Rebuild(build)
    if not callable(build) or isinstance(build, keras.Model):
        raise TypeError(
            "`build` must be a function without arguments that returns a compiled "
            f"BilevelModel, or such a model. Received: {type(build).__name__}"
        )
    return build


def build_model(build: Callable[[], BilevelModel], seed: int) -> BilevelModel:
    """Build a model from a seed, and check that a search can train it.

    Args:
        build: The function.
        seed: The seed of initial weights and of layers that draw.

    Raises:
        TypeError: If the function returns something else than a `BilevelModel`.
        ValueError: If the model is not compiled, has been trained, or is judged by
            something else than the validation loss.
    """
    keras.utils.set_random_seed(seed)
    model = build()
    if not isinstance(model, BilevelModel):
        raise TypeError(
            "`build` must return a compiled BilevelModel. "
            f"Received: {type(model).__name__}"
        )
    _check_compiled(model)
    if int(model.optimizer.iterations) or model.progress.inner_steps:
        raise ValueError(
            "`build` must make a new model each time, with new layers: this one has "
            f"been trained. Received: model '{model.name}' after "
            f"{int(model.optimizer.iterations)} steps"
        )
    if type(model.objective) is not ValidationLoss:
        raise ValueError(
            "A search judges by the loss on validation data. Compile the model with "
            "objective=bilevel_tf.objectives.ValidationLoss(), or without an "
            f"objective. Received: objective={type(model.objective).__name__}"
        )
    return model


def _check_compiled(model):
    if not model.compiled:
        raise ValueError(
            "`build` must compile the model: a search trains with its optimizer, loss "
            f"and metrics. Received: model '{model.name}', not compiled"
        )


def recompile(model: BilevelModel, method: Method) -> None:
    """Compile a model as it is, with another method.

    Args:
        model: The compiled model.
        method: The method.
    """
    arguments = _keras.get_compile_arguments(model)
    arguments |= {
        "hyper_optimizer": model.hyper_optimizer,
        "response_optimizer": None if model.response_follows else _copy_response(model),
        "objective": model.objective,
    }
    arguments["hyper_optimizer"] = _copy(model.hyper_optimizer)
    model.compile(**arguments, method=method)


def _copy_response(model):
    return _copy(model.response_optimizer)


def _copy(optimizer):
    """An optimizer like it, for the variables of another method."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return type(inner).from_config(inner.get_config())


def judge_name(model: BilevelModel) -> str:
    """Return the name of the loss that judges, in the logs of `fit`."""
    outer = model.combined_outer_loss is not None
    return "val_outer_loss" if outer else "val_loss"
