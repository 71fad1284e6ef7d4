"""The method and the objective given to `compile`, and the optimizers that it makes."""

from typing import Any

import keras

from bilevel_tf import _keras
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
        f"bilevel_tf.objectives.ValidationLoss(). Received: objective={objective!r}"
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
            f"bilevel_tf.STN(). Received: method={method!r}"
        )
    if isinstance(method, BestResponse) and not objective.responds:
        raise ValueError(
            f"{type(method).__name__} fits a best response to the loss on "
            f"validation data. With {type(objective).__name__}, `method` must be one "
            f"that differentiates training, such as {objective.suggested_method}. "
            f"Received: method={type(method).__name__}"
        )
    return method


def check_optimizers_differ(optimizer: Any, response: Any, hyper: Any) -> None:
    """Check that no optimizer object has two tasks.

    Its slots and its count of steps are for one list of variables.

    Args:
        optimizer, response, hyper: What `compile` was given.

    Raises:
        ValueError: If two of them are the same object.
    """
    given = {
        "optimizer": optimizer,
        "response_optimizer": response,
        "hyper_optimizer": hyper,
    }
    seen: dict[int, str] = {}
    for name, each in given.items():
        if not isinstance(each, keras.optimizers.Optimizer):
            continue
        if id(each) in seen:
            raise ValueError(
                f"`{seen[id(each)]}` and `{name}` must be two optimizer objects: the "
                "state of an optimizer is for one set of variables. Make one for each. "
                f"Received: the same {type(each).__name__} for both"
            )
        seen[id(each)] = name


def build_optimizers(
    model: keras.Model, response: Any, hyper: Any, config: dict | None
) -> None:
    """Make and build the optimizers of a `BilevelModel` that has its method.

    Args:
        model: The model; its optimizer of the weights is there already.
        response: `response_optimizer`, as given to `compile`.
        hyper: `hyper_optimizer`, as given to `compile`.
        config: Config of a default `response_optimizer`, or `None` for that of the
            optimizer of the weights.

    Raises:
        ValueError: If nothing can be made of what was given, or if an optimizer has
            been built for other variables.
    """
    _build("optimizer", model.optimizer, model.trainable_variables)
    model.response_follows = response is None
    model.response_optimizer = _make(
        "response_optimizer", response, model.optimizer, config
    )
    variables = model.network.response_variables
    _build("response_optimizer", model.response_optimizer, variables)
    default = keras.optimizers.RMSprop(1e-2)
    model.hyper_optimizer = _make("hyper_optimizer", hyper, default)
    variables = model.method.tuned_variables(model.hyperparameters)
    _build("hyper_optimizer", model.hyper_optimizer, variables)


def _make(name, given, default, config=None):
    """Return the optimizer that was given, or a copy of the default."""
    if given is None:
        return type(default).from_config(config or default.get_config())
    try:
        return keras.optimizers.get(given)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a Keras optimizer, the name of one or its config, such "
            f"as keras.optimizers.Adam(1e-3). Received: {name}={given!r}"
        ) from error


def _build(name, optimizer, variables):
    """Build an optimizer for variables, or check that it was built for them."""
    if not optimizer.built:
        optimizer.build(variables)
        return
    # In mixed precision Keras wraps the optimizer.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for variable in variables:
        if not _keras.knows_variable(inner, variable):
            raise ValueError(
                f"`{name}` has been built for other variables: those of another model, "
                "or of the layers that were trained then. Make a new one, such as "
                f"{type(inner).__name__}.from_config(optimizer.get_config()). "
                f"Received: {name} without '{variable.path}'"
            )
