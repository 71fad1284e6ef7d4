"""The hyperparameters in the logs of `fit`, and the names that they have there."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.naming import log_name
from bilevel_tf.hyperparameters.space import HyperparameterSpace


def hyperparameter_logs(space: HyperparameterSpace) -> dict[str, tf.Tensor]:
    """Return the constrained values as scalars by name.

    A vector-valued hyperparameter is shown as its mean, under `<name>_mean`.
    """
    logs = {}
    for name, value in space.current().items():
        scale = space.scales[name]
        logs[log_name(name, scale)] = tf.reduce_mean(value) if scale.shape else value
    return logs


def log_names(space: HyperparameterSpace) -> list[str]:
    """Return the keys of `hyperparameter_logs`."""
    return [log_name(name, scale) for name, scale in space.scales.items()]


def check_log_names(model: keras.Model) -> None:
    """Raise a `ValueError` if a hyperparameter has the name of a loss or metric.

    Args:
        model: A `BilevelModel` that has its objective and is compiled as far as Keras
            goes.
    """
    taken = {"loss", *model.objective.log_names}
    taken |= {metric.name for metric in model.metrics}
    config = _keras.get_compile_arguments(model)
    compiled = [config.get("metrics"), config.get("weighted_metrics")]
    taken |= {_find_metric_name(metric) for metric in keras.tree.flatten(compiled)}
    if len(model.outputs) > 1:
        taken |= {f"{o}_{name}" for o in model.output_names for name in taken}
    taken |= {f"val_{name}" for name in taken}
    for name in log_names(model.hyperparameters):
        if name in taken:
            raise ValueError(
                f"Hyperparameter '{name}' has the name of a loss or metric, so that "
                "`fit` could not show both. Choose another name for it in the "
                f"HyperparameterSpace. Received: '{name}'"
            )


def _find_metric_name(metric: Any) -> str | None:
    if isinstance(metric, str):
        return metric
    return getattr(metric, "name", getattr(metric, "__name__", None))
