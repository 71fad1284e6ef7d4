"""The loss by which validation data judge, if it is not the training loss."""

from typing import Any

import keras

from bilevel_tf import _keras
from bilevel_tf.network.output_heads import check_losses_fit_outputs
from bilevel_tf.network.output_parts import split_by_output
from bilevel_tf.objectives.objective import Objective


def combine_outer_loss(
    model: keras.Model, objective: Objective, loss: Any, loss_weights: Any
) -> _keras.CombinedLoss | None:
    """Return the outer loss of all outputs, or `None` if `compile` was given none.

    What `compile` was given is kept, so that the network finds it and it is saved.

    Args:
        model: A `BilevelModel`, compiled as far as Keras goes.
        objective: The objective given to `compile`.
        loss: The `outer_loss` given to `compile`.
        loss_weights: The `outer_loss_weights` given to `compile`.

    Raises:
        TypeError: If a part of it is not a loss.
        ValueError: If a name is unknown, there is not one loss per output, weights are
            given without a loss, the objective does not judge by such a loss, or a
            final activation does not fit it.
    """
    _keras.set_compile_argument(model, "outer_loss", loss)
    _keras.set_compile_argument(model, "outer_loss_weights", loss_weights)
    if loss is None:
        if loss_weights is not None:
            raise ValueError(
                "`outer_loss_weights` needs `outer_loss`, whose losses it weighs. Give "
                "both, or `loss_weights` for the training loss. "
                f"Received: outer_loss_weights={loss_weights!r} and outer_loss=None"
            )
        return None
    if not objective.takes_outer_loss:
        raise ValueError(
            f"`outer_loss` must be left out with {type(objective).__name__}, which "
            "judges by a number of its own and not by a loss on validation data. Use "
            "objective=bilevel_tf.objectives.ValidationLoss(), or leave it out. "
            f"Received: outer_loss={loss!r}"
        )
    _check_structure(model, loss)
    outputs = _keras.get_graph_outputs(model)
    losses = split_by_output(loss, outputs, model.output_names)
    for given in losses:
        _check_loss(given)
    if all(given is None for given in losses):
        raise ValueError(
            "`outer_loss` must have a loss for at least one output. "
            f"Received: outer_loss={loss!r}"
        )
    check_losses_fit_outputs(model.outputs, losses)
    return _keras.CombinedLoss(loss, loss_weights, model.output_names)


def _check_structure(model: keras.Model, loss: Any) -> None:
    """Raise a `ValueError` if there is not one loss for each output."""
    names = model.output_names
    if isinstance(loss, dict):
        outputs = _keras.get_graph_outputs(model)
        known = {*names, *(outputs if isinstance(outputs, dict) else ())}
        if unknown := set(loss) - known:
            raise ValueError(
                f"`outer_loss` has {sorted(map(str, unknown))}, which no output of the "
                f"model is. The outputs are {', '.join(names)}. "
                f"Received: outer_loss with the keys {sorted(map(str, loss))}"
            )
    elif isinstance(loss, (list, tuple)) and len(loss) != len(names):
        raise ValueError(
            f"`outer_loss` must have one loss for each of the {len(names)} outputs "
            f"({', '.join(names)}), or be one loss for all. "
            f"Received: a list of {len(loss)}"
        )


def _check_loss(loss: Any) -> None:
    """Raise an error if something is no loss, or the name of none."""
    if loss is None or callable(loss):
        return
    if not isinstance(loss, (str, dict)):
        raise TypeError(
            "`outer_loss` must be a loss as Keras takes it: a name such as 'mse', a "
            "function or a keras.losses.Loss, or a list or dict of them by output. "
            f"Received: {loss!r}"
        )
    try:
        keras.losses.get(loss)
    except ValueError as error:
        raise ValueError(
            "`outer_loss` must be the name of a loss of Keras, such as 'mse' or "
            f"'sparse_categorical_crossentropy'. Received: {loss!r}"
        ) from error
