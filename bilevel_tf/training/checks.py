"""What can be said at construction or compile instead of ten minutes into a fit."""

import keras

from bilevel_tf.hyperparameters.references import references
from bilevel_tf.methods.best_response.best_response import BestResponse
from bilevel_tf.methods.best_response.delta_stn import DeltaSTN
from bilevel_tf.methods.method import Method
from bilevel_tf.objectives.objective import Objective
from bilevel_tf.training import rounds

_PEELED = ("softmax", "sigmoid", "log_softmax")


def check_objective(objective):
    """Return `objective`, or raise a `TypeError` that says what one looks like."""
    if isinstance(objective, Objective):
        return objective
    raise TypeError(
        "`objective` must be one objective object such as "
        f"bilevel_tf.objectives.ValidationLoss(). Received: objective={objective!r}"
    )


def check_method(method, objective):
    """Return `method` if it fits the objective; `None` stands for Δ-STN.

    Raises:
        TypeError: If it is no method.
        ValueError: If it fits a best response, and the objective cannot use one.
    """
    if method is None and not objective.responds:
        raise ValueError(
            f"`method` must be given with {type(objective).__name__}: the default, "
            "DeltaSTN, is for the loss on validation data. Use one that differentiates "
            f"training, such as {objective.suggested_method}."
        )
    method = DeltaSTN() if method is None else method
    if isinstance(method, Method):
        if isinstance(method, BestResponse) and not objective.responds:
            raise ValueError(
                f"{type(method).__name__} fits a best response to the loss on "
                f"validation data; with {type(objective).__name__} `method` must be "
                "one that differentiates training, such as "
                f"{objective.suggested_method}."
            )
        return method
    raise TypeError(
        "`method` must be one method object such as bilevel_tf.DeltaSTN() or "
        f"bilevel_tf.STN(). Received: method={method!r}"
    )


def check_factor_shapes(model):
    """Raise a `ValueError` where a penalty factor does not fit its weight."""
    for variable in model.trainable_variables:
        for factor in references(variable.regularizer):
            target = tuple(variable.shape)
            if not factor.broadcasts_to(target):
                raise ValueError(
                    f"Hyperparameter '{factor.name}' of shape {factor.scale.shape} "
                    f"cannot be the penalty factor of '{variable.path}' of shape "
                    f"{target}: give it shape (), {target}, or one that broadcasts to "
                    "that."
                )


def check_log_names(model):
    """Raise a `ValueError` if a hyperparameter is called as a metric is."""
    taken = {"loss", *model.objective.log_names}
    taken |= {metric.name for metric in model.metrics}
    config = model._compile_config.config
    compiled = [config.get("metrics"), config.get("weighted_metrics")]
    taken |= {_metric_name(metric) for metric in keras.tree.flatten(compiled)}
    if len(model.outputs) > 1:
        taken |= {f"{o}_{name}" for o in model.output_names for name in taken}
    taken |= {f"val_{name}" for name in taken}
    for name in rounds.log_names(model.hyperparameters):
        if name in taken:
            raise ValueError(
                f"Hyperparameter '{name}' has the name of a loss or metric, so that "
                "`fit` could not show both. Choose another name."
            )


def _metric_name(metric):
    if isinstance(metric, str):
        return metric
    return getattr(metric, "name", getattr(metric, "__name__", None))
