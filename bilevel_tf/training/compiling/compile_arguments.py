"""The method and the objective given to `compile`, and the optimizers that it makes."""

from typing import Any

from bilevel_tf.hyperparameters.references import references
from bilevel_tf.methods.best_response.best_response import BestResponse
from bilevel_tf.methods.best_response.delta_stn import DeltaSTN
from bilevel_tf.methods.method import Method
from bilevel_tf.objectives.objective import Objective
from bilevel_tf.objectives.validation_loss import ValidationLoss


def choose_objective(objective: Objective | None) -> Objective:
    """Return the objective, or a `ValidationLoss` for `None`.

    Raises:
        TypeError: If it is not an objective object.
    """
    if objective is None:
        return ValidationLoss()
    if isinstance(objective, Objective):
        return objective
    raise TypeError(
        "`objective` must be one objective object such as "
        f"bilevel_tf.objectives.ValidationLoss().{_hint_at_call(objective)} "
        f"Received: objective={objective!r}"
    )


def choose_method(method: Method | None, objective: Objective) -> Method:
    """Return the method, or a `DeltaSTN` for `None`.

    Raises:
        TypeError: If it is not a method object.
        ValueError: If the method fits a best response, or would by default, and the
            objective cannot use one.
    """
    if method is None and not objective.responds:
        raise ValueError(
            f"`method` must be given with {type(objective).__name__}: the default, "
            "DeltaSTN, is for the loss on validation data. Use a method that "
            f"differentiates training, such as {objective.suggested_method}. "
            "Received: method=None"
        )
    method = DeltaSTN() if method is None else method
    if not isinstance(method, Method):
        raise TypeError(
            "`method` must be one method object such as bilevel_tf.DeltaSTN() or "
            f"bilevel_tf.Neumann().{_hint_at_call(method)} Received: method={method!r}"
        )
    if isinstance(method, BestResponse) and not objective.responds:
        raise ValueError(
            f"{type(method).__name__} fits a best response to the loss on "
            f"validation data. With {type(objective).__name__}, `method` must be one "
            f"that differentiates training, such as {objective.suggested_method}. "
            f"Received: method={type(method).__name__}"
        )
    return method


def _hint_at_call(given: Any) -> str:
    """Say how to make an object of a class that was given in its place."""
    if not isinstance(given, type):
        return ""
    return f" A class must be called: {given.__name__}()."


def check_loss_weights(loss_weights: Any) -> None:
    """Raise a `TypeError` if a hyperparameter is given to `loss_weights`."""
    for weight in references(loss_weights):
        raise TypeError(
            "`loss_weights` must be numbers. To tune the weight of a loss, give `loss` "
            f"bilevel_tf.losses.WeightedLoss('mse', space['{weight.name}']), and "
            f"another loss as `outer_loss`. Received: hyperparameter '{weight.name}'"
        )
