"""A prior on a hyperparameter."""

from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from bilevel_tf._arguments import check_positive, show
from bilevel_tf.scales.numbers import pack_array, to_array


@keras.saving.register_keras_serializable("bilevel_tf")
class GaussianHyperprior:
    """A Gaussian prior p(λ) on the unconstrained form of a hyperparameter.

    Give it to a scale as its `prior`. The outer objective of the Δ-STN methods then
    contains KL(p(ε|σ) around λ ‖ p(λ)) in place of the negative entropy −H[p(ε|σ)].
    With an entropy weight τ = 1, that objective is the variational bound of Eq. 2.7 of
    the Δ-STN paper. Methods without perturbations refuse a hyperparameter with a prior.

    Not to be confused with `bilevel_tf.NormalPrior`, a prior on weights.

    Args:
        center: Mean of the prior, given as a *constrained* value, in the range of the
            hyperparameter: a number, used for all entries of a vector-valued
            hyperparameter, or an array-like of the hyperparameter's shape.
        scale: Standard deviation on the *unconstrained* scale, positive, the same for
            all entries. Defaults to 1.

    Raises:
        ValueError: If `center` is not a number or an array of numbers, or `scale` is
            not positive and finite. The scale that takes the prior raises one if
            `center` is outside its range.

    Reference:
        Bae and Grosse, "Delta-STN: Efficient bilevel optimization for neural networks
        using structured response Jacobians", 2020, Eq. 2.7.

    Example:

    >>> prior = bt.scales.GaussianHyperprior(1e-3, scale=2.0)
    >>> scale = bt.LogUniform(1e-6, 1.0, initial=1e-2, prior=prior)
    """

    def __init__(self, center: ArrayLike, scale: float = 1.0):
        self.center = to_array(center, "center")
        self.scale = check_positive(scale, "scale")

    def center_of(self, shape: tuple[int, ...]) -> np.ndarray:
        """The mean as an array of a hyperparameter's shape.

        Raises:
            ValueError: If `center` has another shape.
        """
        if np.shape(self.center) not in ((), tuple(shape)):
            raise ValueError(
                f"`prior.center` must be a number or have shape {tuple(shape)}, as the "
                f"initial value has. Received: prior.center={show(self.center)}"
            )
        return np.broadcast_to(self.center, shape)

    def get_config(self) -> dict[str, Any]:
        """Arguments to make this prior again."""
        return {"center": pack_array(self.center), "scale": self.scale}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GaussianHyperprior":
        """The inverse of `get_config`."""
        return cls(**config)
