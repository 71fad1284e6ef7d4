"""A prior on a hyperparameter."""

import math

import keras


@keras.saving.register_keras_serializable("bilevel_tf")
class GaussianHyperprior:
    """A Gaussian prior p(λ) on the unconstrained value of a hyperparameter.

    With it the outer objective has KL(p(ε|σ) around λ ‖ p(λ)) where it otherwise has
    −H[p(ε|σ)]; an entropy weight τ = 1 makes it the variational bound of Eq. 2.7 of
    the Δ-STN paper.

    Args:
        center: Mean, given on the constrained scale of the hyperparameter.
        scale: Standard deviation on the unconstrained scale. Defaults to 1.

    Raises:
        ValueError: If `scale` is not positive and finite.
    """

    def __init__(self, center, scale=1.0):
        self.center = float(center)
        self.scale = float(scale)
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(
                f"`scale` must be positive and finite. Received: scale={scale}"
            )

    def get_config(self):
        """Arguments to make this prior again."""
        return {"center": self.center, "scale": self.scale}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(**config)
