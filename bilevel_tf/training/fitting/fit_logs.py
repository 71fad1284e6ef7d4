"""The hyperparameters in the logs of `fit`, and the names that they have there."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.naming import log_name
from bilevel_tf.hyperparameters.space import HyperparameterSpace


def hyperparameter_logs(space: HyperparameterSpace) -> dict[str, float]:
    """Return the present constrained values as numbers by name.

    A vector-valued hyperparameter is shown as its mean, under `<name>_mean`.
    """
    return name_values(space, stack_values(space))


def stack_values(space: HyperparameterSpace) -> tf.Tensor:
    """Return the values of `hyperparameter_logs` as one tensor, for a compiled step.

    TensorFlow takes long to optimise a function of many outputs.
    """
    values = space.current().values()
    return tf.stack([tf.reduce_mean(v) if v.shape.rank else v for v in values])


def name_values(space: HyperparameterSpace, stacked: tf.Tensor) -> dict[str, float]:
    """Return the numbers that `stack_values` stacked, by name."""
    return dict(zip(log_names(space), np.asarray(stacked).tolist(), strict=True))


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
