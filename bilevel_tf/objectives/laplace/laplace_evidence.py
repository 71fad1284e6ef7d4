"""The evidence of the hyperparameters by Laplace's approximation."""

import math
from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count
from bilevel_tf.hyperparameters.values import mean_value
from bilevel_tf.losses import GaussianLikelihood
from bilevel_tf.network.network import Network
from bilevel_tf.objectives.bayesian import BayesianObjective
from bilevel_tf.objectives.laplace import dense_hessian, layer_hessian, requirements
from bilevel_tf.objectives.laplace.data_term import DataTerm
from bilevel_tf.objectives.likelihoods import likelihoods

_LOG_DETERMINANTS = {
    "exact": dense_hessian.exact,
    "ggn": dense_hessian.gauss_newton,
    "kronecker": layer_hessian.kronecker,
    "diagonal": layer_hessian.diagonal,
}


@keras.saving.register_keras_serializable("bilevel_tf")
class LaplaceEvidence(BayesianObjective):
    """The negative log evidence per example, on training data.

    Q = −log p(D|h) / N, in nats, where N is the number of training examples. With the n
    trained weights ŵ,

        log p(D|h) ≈ log p(D|ŵ) + log p(ŵ|h) + (n/2) log 2π − ½ log|H|,

    where H is the Hessian of −log p(D|w) − log p(w|h) at ŵ. The approximation is exact
    for a linear model with Gaussian noise. No validation data are needed. The logs show
    log p(D|h) as "log_evidence".

    **What it needs.** Every trained weight needs a `NormalPrior` as its regularizer.
    The loss must be a mean negative log likelihood: a crossentropy or
    `GaussianLikelihood`. The network runs as in training and must not be random.

    **What it tunes.** Hyperparameters h are precisions and means of the priors and the
    noise precision of a `GaussianLikelihood`. ŵ depends on them, and H on ŵ. Methods
    that differentiate training take this into account; `DARTS(second_order=None)` does
    not; `MacKayUpdate` replaces the descent by a fixed-point iteration.

    **Batches.** On a batch, the likelihood and its Hessian are estimated as N times
    their means. Give `fit` a `batch_size` of N for the evidence itself. The formula
    supposes that the weights are trained to ŵ, which is easiest with full batches too.

    Args:
        hessian: The form of the likelihood's part of H:
            "exact" has all second derivatives. Away from ŵ, H may be indefinite and
            the evidence is then undefined; log |det H| is used there, and
            `ConjugateGradient` logs that it did not converge.
            "ggn" is the generalised Gauss-Newton matrix. It is positive semidefinite
            everywhere, and equal to "exact" for a linear model or a perfect fit. This
            is the default.
            "kronecker" has, of that matrix, the block of each bias, and the block of
            each kernel as a Kronecker product of two means (K-FAC; for convolutions
            KFC, which supposes that derivatives at two positions are uncorrelated). It
            is for larger networks of Dense and Conv layers that are called once each,
            with one precision per kernel.
            "diagonal" has the diagonal of that matrix, for the same networks and any
            precisions.
            The last two take one backward pass per output. Under XLA on a CPU the
            eigenvalues of "kronecker" are slow: seconds for a factor of 300 rows.
        max_weights: Largest number of rows of a dense matrix: of the Hessian, or of a
            Kronecker factor. Defaults to 2,000, which is 32 MB in double precision. The
            Jacobian of "ggn" has n × batch × outputs further entries.

    Raises:
        ValueError: If an argument is not one of these. At `compile`, if the model has
            no evidence or is too large. At `fit`, if there are sample weights, or if
            the number of examples is not the `data_size` of the priors.

    Example:

    >>> hp = bt.HyperparameterSpace(
    ...     precision=bt.LogUniform(1e-3, 1e3, initial=1.0),
    ...     noise=bt.LogUniform(1e-3, 1e3, initial=1.0),
    ... )
    >>> x = np.ones((20, 2), "float32")
    >>> prior = bt.NormalPrior(hp["precision"], data_size=len(x))
    >>> inputs = keras.Input((2,))
    >>> layer = keras.layers.Dense(1, kernel_regularizer=prior, bias_regularizer=prior)
    >>> model = bt.BilevelModel(inputs, layer(inputs), hyperparameters=hp)
    >>> model.compile(
    ...     "sgd",
    ...     loss=bt.losses.GaussianLikelihood(hp["noise"]),
    ...     method=bt.methods.MacKayUpdate(),
    ...     objective=bt.objectives.LaplaceEvidence(),
    ... )
    >>> evidence = -len(x) * model.evaluate_objective(x, np.ones((20, 1), "float32"))
    >>> bool(np.isfinite(evidence))
    True

    Reference:
        MacKay, "Bayesian interpolation" and "A practical Bayesian framework for
        backpropagation networks", 1992; Bishop, "Pattern recognition and machine
        learning", 2006, Eq. 4.137 and 5.175. Martens & Grosse, "Optimizing neural
        networks with Kronecker-factored approximate curvature", 2015; Grosse &
        Martens, "A Kronecker-factored approximate Fisher matrix for convolution
        layers", 2016. For tuning as here: Immer et al., "Scalable marginal likelihood
        estimation for model selection in deep learning", 2021.
    """

    log_names = ("log_evidence",)

    def __init__(self, hessian: str = "ggn", max_weights: int = 2000):
        if hessian not in _LOG_DETERMINANTS:
            raise ValueError(
                f"`hessian` must be one of {tuple(_LOG_DETERMINANTS)}. "
                f"Received: hessian={hessian!r}"
            )
        self.hessian = hessian
        self.max_weights = check_count(max_weights, "max_weights", 1)

    def check(self, network: Network) -> None:
        """Check that the model has an evidence, of a size that can be computed.

        Raises:
            ValueError: If it has not.
        """
        requirements.check_one_output(network)
        super().check(network)
        requirements.check_penalties_are_priors(network)
        moved, counts = requirements.trace(network)
        requirements.check_deterministic(network, moved)
        if self.hessian in ("exact", "ggn"):
            requirements.check_size(network, self.hessian, self.max_weights)
        else:
            requirements.check_layers(network, self.hessian, moved, counts)
        if self.hessian == "kronecker":
            requirements.check_factor_precisions(network)
            requirements.check_factor_sizes(network, self.max_weights)

    def data_size(self, network: Network) -> int:
        """Return N, the number of training examples that the priors were given."""
        return requirements.normal_priors(network)[0].data_size

    def outer_loss(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """Return Q = −log p(D|h) / N; arguments as in `Objective`."""
        parts = self.parts(network, weights, hyperparameters, batch)
        return self.loss_of(network, parts, weights)

    def parts(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
        precisions: list[tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        """Return the terms that the evidence is made of.

        Args:
            network: The network.
            weights: ŵ, values of the trained weights.
            hyperparameters: A list of one tensor, the unconstrained vector `[h]`.
            batch: x, y and sample weights.
            precisions: A in H, tensors shaped as the weights, so that a method can
                differentiate with respect to these. Defaults to `None`: the result of
                `self.precisions`.

        Returns:
            Dict of scalars: "log_likelihood", "log_prior" and "log_determinant", which
            is log |H|.
        """
        if precisions is None:
            precisions = self.precisions(network, weights, hyperparameters)
        likelihood, data_size = _find_likelihood(network), self.data_size(network)
        term = DataTerm(network, likelihood, hyperparameters, batch, data_size)
        log_determinant = _LOG_DETERMINANTS[self.hessian](term, weights, precisions)
        with network.at(weights, hyperparameters):
            pairs = zip(requirements.normal_priors(network), weights, strict=True)
            log_prior = tf.add_n([prior.log_prob(w) for prior, w in pairs])
        return {
            "log_likelihood": -term.value(weights),
            "log_prior": log_prior,
            "log_determinant": tf.cast(log_determinant, log_prior.dtype),
        }

    def loss_of(
        self, network: Network, parts: dict[str, tf.Tensor], weights: list[tf.Tensor]
    ) -> tf.Tensor:
        """Return Q from the dict that `parts` returned, and the weights there."""
        size = sum(w.shape.num_elements() for w in weights)
        log_volume = size * math.log(2 * math.pi) - parts["log_determinant"]
        evidence = parts["log_likelihood"] + parts["log_prior"] + 0.5 * log_volume
        return -evidence / self.data_size(network)

    def precisions(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
    ) -> list[tf.Tensor]:
        """Return A, the precisions of the priors, in tensors shaped as the weights."""
        priors = requirements.normal_priors(network)
        with network.at(weights, hyperparameters):
            return [
                tf.broadcast_to(mean_value(prior.precision, w.dtype), w.shape)
                for prior, w in zip(priors, weights, strict=True)
            ]

    def log_precision(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        precisions: list[tf.Tensor],
    ) -> tf.Tensor:
        """Return log |A| plus, with Gaussian noise, N C log λ for C outputs."""
        logs = [tf.reduce_sum(tf.math.log(a)) for a in precisions]
        likelihood = _find_likelihood(network)
        if isinstance(likelihood, GaussianLikelihood):
            with network.at(weights, hyperparameters):
                noise = mean_value(likelihood.precision, weights[0].dtype)
            outputs = keras.tree.flatten(network.outputs)[0].shape[-1]
            logs.append(self.data_size(network) * outputs * tf.math.log(noise))
        return tf.add_n(logs)

    def logs(self, network: Network, outer_loss: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the evidence itself, log p(D|h), as "log_evidence"."""
        return {"log_evidence": -self.data_size(network) * outer_loss}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this objective again."""
        return {"hessian": self.hessian, "max_weights": self.max_weights}


def _find_likelihood(network: Network) -> keras.losses.Loss:
    [loss] = likelihoods(network, "LaplaceEvidence")
    return loss
