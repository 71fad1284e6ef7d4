"""Re-estimation of precisions in place of descent on the evidence."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import check_positive
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.methods.method import Method
from bilevel_tf.network.network import Network
from bilevel_tf.objectives.laplace.laplace_evidence import LaplaceEvidence


@keras.saving.register_keras_serializable("bilevel_tf")
class MacKayUpdate(Method):
    """Sets precisions to the fixed point of `LaplaceEvidence`, by MacKay's updates.

    After every round of training steps,

        A ← γ / Σ (w − m)²    and    λ ← (N C − γ) / Σ (y − f)²

    for the precision A of weights w with prior mean m and for the noise precision λ of
    N targets y with C outputs f. γ = Σ_i (1 − A_i (H⁻¹)_ii) is the effective number of
    parameters. Sums are over everything that has the hyperparameter as its precision,
    or over what has one entry of it.

    If the weights are trained in each round, this takes far fewer rounds than descent.
    As in MacKay's derivation, the change of H with the weights is left out. For a
    linear model H does not depend on the weights, and the fixed points are the
    stationary points of the evidence.

    The hyper-optimizer is not used. The logs show γ over all weights as
    "effective_parameters", beside "log_evidence".

    Args:
        max_factor: Largest factor by which one update multiplies or divides a
            precision; above 1. It keeps the first updates, at weights that are not
            trained yet, from the ends of the range. Defaults to 10.
        train_steps: The number of training steps before an update, which should be
            enough to train the weights. Defaults to 5, as for all methods.
        valid_steps: The number of updates in a round. Defaults to 1.
        warmup_epochs: Number of epochs at the start without updates. Defaults to 0.

    Raises:
        ValueError: If an argument is out of its range. At `compile`, if the objective
            is not `LaplaceEvidence`, or if a hyperparameter is not the precision of a
            `NormalPrior` or `GaussianLikelihood`.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-3, 1e3, initial=1.0))
    >>> prior = bt.NormalPrior(hp["precision"], data_size=20)
    >>> inputs = keras.Input((2,))
    >>> layer = keras.layers.Dense(1, kernel_regularizer=prior, bias_regularizer=prior)
    >>> model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    >>> model.compile(
    ...     "sgd",
    ...     loss=bt.losses.GaussianLikelihood(),
    ...     method=bt.methods.MacKayUpdate(train_steps=20),
    ...     objective=bt.objectives.LaplaceEvidence(),
    ... )

    Reference:
        MacKay, "Bayesian interpolation", 1992; Bishop, "Pattern recognition and
        machine learning", 2006, Eq. 3.92 and 3.95 (A is α there, and λ is β).
    """

    log_names = ("effective_parameters",)

    def __init__(
        self,
        max_factor: float = 10.0,
        *,
        train_steps: int = 5,
        valid_steps: int = 1,
        warmup_epochs: int = 0,
    ):
        super().__init__(train_steps, valid_steps, warmup_epochs)
        self.max_factor = check_positive(max_factor, "max_factor")
        if self.max_factor <= 1:
            raise ValueError(
                f"`max_factor` must be above 1. Received: max_factor={max_factor!r}"
            )

    def check(self, network: Network) -> None:
        """Check that all hyperparameters are precisions of an evidence.

        Raises:
            ValueError: If they are not.
        """
        if not isinstance(network.objective, LaplaceEvidence):
            raise ValueError(
                "MacKayUpdate needs objective=bilevel_tf.objectives.LaplaceEvidence(). "
                f"Received: objective={type(network.objective).__name__}"
            )
        holders = [v.regularizer for v in network.weights]
        holders += network.losses
        precisions = [getattr(holder, "precision", None) for holder in holders]
        means = [getattr(holder, "mean", None) for holder in holders]
        others = set(network.hyperparameters.names) - _find_names(precisions)
        others |= _find_names(means)
        if others:
            raise ValueError(
                "MacKayUpdate finds only precisions of NormalPrior and "
                "GaussianLikelihood. Use bilevel_tf.ConjugateGradient() for other "
                f"hyperparameters. Received: {', '.join(sorted(others))}, which are not"
            )

    def outer_step(
        self, network: Network, validation: tuple, training: tuple | None
    ) -> dict[str, tf.Tensor]:
        """Re-estimate all precisions on a batch of the training data.

        Arguments as in `Method`.

        Returns:
            "log_evidence" and "effective_parameters", scalars.
        """
        space, objective = network.hyperparameters, network.objective
        weights = [tf.convert_to_tensor(v) for v in network.weights]
        h = tf.convert_to_tensor(space.unconstrained)
        point = network, weights, [h]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(h)
            precisions = objective.precisions(*point)
            tape.watch(precisions)
            parts = objective.parts(*point, validation, precisions)
            # log p(D|w) p(w|h) is half of the normaliser less half of the squares.
            normaliser = objective.log_precision(*point, precisions)
            fit = parts["log_likelihood"] + parts["log_prior"]
        counts = tape.gradient(normaliser, h)
        squares = counts - 2.0 * tape.gradient(fit, h)
        determinant = parts["log_determinant"]
        # The derivative of log |H| by the logarithm of a precision is Σ A_i (H⁻¹)_ii,
        # and γ is the number of weights less this sum.
        known = counts - tape.gradient(determinant, h, unconnected_gradients="zero")
        space.unconstrained.assign(self._move(space, h, counts, known, squares))
        shares = tape.gradient(determinant, precisions)
        lost = [tf.reduce_sum(a * s) for a, s in zip(precisions, shares, strict=True)]
        size = sum(w.shape.num_elements() for w in weights)
        logs = objective.logs(network, objective.loss_of(network, parts, weights))
        logs["effective_parameters"] = size - tf.add_n(lost)
        return {name: tf.cast(value, "float32") for name, value in logs.items()}

    def _move(
        self,
        space: HyperparameterSpace,
        h: tf.Tensor,
        counts: tf.Tensor,
        known: tf.Tensor,
        squares: tf.Tensor,
    ) -> tf.Tensor:
        """Multiply every precision by known / squares; return the unconstrained h."""
        tiny = np.finfo(h.dtype.as_numpy_dtype).tiny
        factors = known / tf.maximum(squares, tiny)
        factors = tf.clip_by_value(factors, 1.0 / self.max_factor, self.max_factor)
        # At the very end of its range a hyperparameter has no derivative: let it be.
        factors = tf.where(counts > 0.0, factors, 1.0)
        values, start = {}, 0
        for name, value in space.constrain(h).items():
            scale = space.scales[name]
            factor = tf.reshape(factors[start : start + scale.size], scale.shape)
            start += scale.size
            low, high = scale.ends
            inside = low * (1.0 + 1e-5), high * (1.0 - 1e-5)
            values[name] = tf.clip_by_value(value * factor, *inside)
        return space.unconstrain(values)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this method again."""
        return {**super().get_config(), "max_factor": self.max_factor}


def _find_names(parameters: list) -> set[str]:
    """Find the names of the hyperparameters among parameters."""
    return {p.name for p in parameters if isinstance(p, Hyperparameter)}
