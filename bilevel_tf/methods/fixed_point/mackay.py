"""Re-estimation of precisions in place of descent on the evidence."""

import keras
import numpy as np
import tensorflow as tf

from bilevel_tf._arguments import positive
from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.methods.method import Method
from bilevel_tf.objectives.laplace.laplace_evidence import LaplaceEvidence


@keras.saving.register_keras_serializable("bilevel_tf")
class MacKayUpdate(Method):
    """The fixed point of `LaplaceEvidence` in the precisions, by MacKay's updates.

    A ← γ / Σ (w − m)² and λ ← (N C − γ) / Σ (y − f)² after every round of training
    steps, with γ = Σ_i (1 − A_i (H⁻¹)_ii) the effective number of parameters, for each
    hyperparameter over all that it is the precision of, or for each of its entries.
    Where weights are trained in between, this takes far fewer steps than descent. As
    in MacKay's derivation the change of H with the weights is left out; it has none
    for a linear model, whose evidence then has its stationary points here.

    The hyper-optimizer is not used. The fit shows `effective_parameters`, that is γ
    over all weights, beside `log_evidence`.

    Args:
        max_factor: Most that a precision is multiplied or divided by in one update,
            which keeps the first ones, of weights not trained yet, from the ends of
            the range. Defaults to 10.
        **kwargs: See `Method`. `train_steps` should be enough to train the weights.

    Raises:
        ValueError: If `max_factor` is not above 1. In `compile`, if the objective is
            not `LaplaceEvidence`, or a hyperparameter is not a precision.

    Reference:
        MacKay, "Bayesian interpolation", 1992; Bishop, "Pattern recognition and
        machine learning", 2006, Eq. 3.92 and 3.95.
    """

    log_names = ("effective_parameters",)

    def __init__(self, max_factor=10.0, **kwargs):
        super().__init__(**kwargs)
        self.max_factor = positive(max_factor, "max_factor")
        if self.max_factor <= 1:
            raise ValueError(
                f"`max_factor` must be above 1. Received: max_factor={max_factor!r}"
            )

    def check(self, network):
        """Check that all hyperparameters are precisions of an evidence."""
        if not isinstance(network.objective, LaplaceEvidence):
            raise ValueError(
                "MacKayUpdate needs objective=bilevel_tf.objectives.LaplaceEvidence(). "
                f"Received: objective={type(network.objective).__name__}"
            )
        holders = [v.regularizer for v in network.weights]
        holders += network.losses
        precisions = [getattr(holder, "precision", None) for holder in holders]
        means = [getattr(holder, "mean", None) for holder in holders]
        others = set(network.hyperparameters.names) - _names(precisions)
        others |= _names(means)
        if others:
            raise ValueError(
                "MacKayUpdate finds precisions of NormalPrior and GaussianLikelihood "
                f"alone. Received: {', '.join(sorted(others))}, which are not. Use "
                "bilevel_tf.ConjugateGradient()."
            )

    def outer_step(self, network, validation, training):
        """Re-estimate all precisions on a batch of the training data."""
        space, objective = network.hyperparameters, network.objective
        weights = [tf.convert_to_tensor(v) for v in network.weights]
        h = tf.convert_to_tensor(space.unconstrained)
        point = network, weights, [h]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(h)
            precisions = objective.precisions(*point)
            tape.watch(precisions)
            parts = objective.parts(*point, validation, precisions)
            # ½ of this less the squares is the logarithm of p(D|w) p(w|h).
            normaliser = objective.log_precision(*point, precisions)
            fit = parts["log_likelihood"] + parts["log_prior"]
        counts = tape.gradient(normaliser, h)
        squares = counts - 2.0 * tape.gradient(fit, h)
        determinant = parts["log_determinant"]
        # By the logarithm of a precision this is Σ A_i (H⁻¹)_ii, and n less it is γ.
        known = counts - tape.gradient(determinant, h, unconnected_gradients="zero")
        space.unconstrained.assign(self._moved(space, h, counts, known, squares))
        shares = tape.gradient(determinant, precisions)
        lost = [tf.reduce_sum(a * s) for a, s in zip(precisions, shares, strict=True)]
        size = sum(w.shape.num_elements() for w in weights)
        logs = objective.logs(network, objective.loss_of(network, parts, weights))
        logs["effective_parameters"] = size - tf.add_n(lost)
        return {name: tf.cast(value, "float32") for name, value in logs.items()}

    def _moved(self, space, h, counts, known, squares):
        """The unconstrained vector, every entry's precision times known / squares."""
        tiny = np.finfo(h.dtype.as_numpy_dtype).tiny
        factors = known / tf.maximum(squares, tiny)
        factors = tf.clip_by_value(factors, 1.0 / self.max_factor, self.max_factor)
        # At the very end of a range nothing has a derivative.
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

    def get_config(self):
        return {**super().get_config(), "max_factor": self.max_factor}


def _names(parameters):
    return {p.name for p in parameters if isinstance(p, Hyperparameter)}
