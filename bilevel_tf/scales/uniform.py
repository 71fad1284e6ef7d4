"""A number in an interval."""

import keras
import tensorflow as tf

from bilevel_tf.scales.interval import Interval, stretch, unstretch


@keras.saving.register_keras_serializable("bilevel_tf")
class Uniform(Interval):
    """A number in an open interval, such as a dropout rate.

    The value is low + (high − low) · sigmoid(λ).

    Args:
        low: Lower end, which is never reached.
        high: Upper end, which is never reached.
        initial: Initial value, strictly inside the interval. A list or array makes
            the hyperparameter vector-valued.
        perturbation_scale: Initial standard deviation σ of the perturbation of λ, on
            the unconstrained scale, positive. Defaults to 1, as in the Δ-STN paper.
            Only methods that perturb hyperparameters use it.
        learn_perturbation_scale: Whether σ is tuned together with λ. Defaults to
            `True`.
        prior: A `GaussianHyperprior` on λ, or `None` for a flat one. Defaults to
            `None`.

    Raises:
        ValueError: If `low` and `high` are not finite numbers in this order, `initial`
            is not between them, `perturbation_scale` is not positive and finite, or
            a number cannot be held in the dtype of hyperparameters.
        TypeError: If `prior` is not a `GaussianHyperprior`, or
            `learn_perturbation_scale` is not a Boolean.

    Example:

    >>> hp = bt.HyperparameterSpace(rate=bt.Uniform(0.0, 0.95, initial=0.05))
    >>> hp.assign({"rate": 0.5})
    >>> round(hp.values()["rate"], 6)
    0.5
    """

    stacked = ("low", "high")

    def constrain(self, unconstrained: tf.Tensor) -> tf.Tensor:
        return stretch(tf.convert_to_tensor(unconstrained), self.low, self.high)

    def unconstrain(self, value: tf.Tensor) -> tf.Tensor:
        return unstretch(tf.convert_to_tensor(value), self.low, self.high)
