"""Hyperparameters that an outer step took to where no hypergradient leads back."""

import warnings

import numpy as np
import tensorflow as tf

from bilevel_tf.hyperparameters.naming import list_names
from bilevel_tf.hyperparameters.space import HyperparameterSpace


def find_lost(space: HyperparameterSpace) -> list[str]:
    """Name the hyperparameters that no hypergradient can move any more.

    λ is then not finite, or so far out that the derivative of the value with respect
    to it is 0, or not finite, in the dtype of λ.

    Args:
        space: The space.
    """
    unconstrained = tf.convert_to_tensor(space.unconstrained)
    with tf.GradientTape() as tape:
        tape.watch(unconstrained)
        values = space.constrain(unconstrained)
        names = [n for n, scale in space.scales.items() if scale.differentiable]
        parts = [tf.reshape(values[n], [-1]) for n in names]
        total = tf.zeros([]) if not parts else _weigh(tf.concat(parts, 0))
    slopes = tape.gradient(total, unconstrained, unconnected_gradients="zero").numpy()
    lost = ~np.isfinite(unconstrained) | ~np.isfinite(slopes) | (slopes == 0)
    return [name for name in names if np.any(lost[space.slices[name]])]


def explain_lost(space: HyperparameterSpace, before: np.ndarray) -> str:
    """Say in a sentence which hyperparameters were lost since the epoch began.

    Args:
        space: The space.
        before: λ at the start of the epoch.

    Returns:
        The sentence, or an empty string if none was lost.
    """
    present = np.asarray(space.unconstrained)
    lost = [
        name
        for name in find_lost(space)
        if not np.array_equal(present[space.slices[name]], before[space.slices[name]])
    ]
    if not lost:
        return ""
    part = space.slices[lost[0]]
    moved = np.argmax(np.abs(present[part] - before[part]))
    return (
        f"Outer steps took {list_names(lost, 3)} to the end of its range, from where "
        f"no hypergradient leads back: the unconstrained form of '{lost[0]}' was "
        f"{before[part][moved]:.3g} at the start of the epoch and is "
        f"{present[part][moved]:.3g}. Make the learning rate of `hyper_optimizer` "
        "smaller, set `clipnorm` in it, or give the scale an end nearer to what is "
        "wanted."
    )


def warn_of_lost(space: HyperparameterSpace, before: np.ndarray) -> None:
    """Warn if hyperparameters were lost since the epoch began.

    Args:
        space: The space.
        before: λ at the start of the epoch.
    """
    if explanation := explain_lost(space, before):
        warnings.warn(explanation, RuntimeWarning, stacklevel=2)


def _weigh(values):
    """A sum with weights that differ, so that shares of a whole count as well."""
    weights = np.linspace(1.0, 2.0, values.shape[0])
    return tf.reduce_sum(values * tf.constant(weights, values.dtype))
