"""The evidence of the hyperparameters, by Laplace's approximation."""

import math

import keras
import tensorflow as tf

from bilevel_tf._arguments import count
from bilevel_tf.hyperparameters.values import mean_value
from bilevel_tf.losses import GaussianLikelihood
from bilevel_tf.objectives.bayesian import BayesianObjective
from bilevel_tf.objectives.laplace import dense_hessian, laplace_checks, layer_hessian
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
    """−log p(D|h) / N on the training data: needs no validation data.

    With ŵ the trained weights, n of them,

        log p(D|h) ≈ log p(D|ŵ) + log p(ŵ|h) + (n/2) log 2π − ½ log|H|,

    H the Hessian at ŵ of −log p(D|w) − log p(w|h). It is exact for a linear model with
    Gaussian noise. Every weight needs a `NormalPrior`, the loss must be a likelihood,
    and the network free of randomness; it runs as in training.

    Hyperparameters h are the priors' precisions and means and the noise precision of
    a `GaussianLikelihood`. ŵ moves with them, and with it H: methods that
    differentiate training see it, `DARTS(second_order=None)` leaves it out.

    On a batch the likelihood and its Hessian are N times their means; give `fit` a
    `batch_size` of N for the evidence itself. That is also where weights can be
    trained to ŵ, which all of this supposes.

    Args:
        hessian: What is taken for the likelihood's part of H.
            "exact": all second derivatives. It may be indefinite away from ŵ, where
            the evidence is not defined; then log |det H| is taken, and
            `ConjugateGradient` logs that it did not converge.
            "ggn": the generalised Gauss-Newton matrix, positive anywhere, and the
            exact one for a linear model or a perfect fit. The default.
            "kronecker": its blocks for each kernel as a Kronecker product of two
            means (K-FAC; KFC for convolutions, which supposes that derivatives at two
            positions are uncorrelated), and its block for each bias. For larger
            networks of Dense and Conv layers, each called once, with one precision
            per kernel.
            "diagonal": its diagonal alone, for the same networks and any precisions.
        max_weights: Largest number of rows of a dense matrix: of the Hessian, or of a
            Kronecker factor. Defaults to 2,000 (32 MB in double precision). The
            Jacobian of "ggn" has n times batch times outputs entries beside it.

    The two by layers take one backward pass per output. Under XLA on a CPU the
    eigenvalues of "kronecker" are slow: seconds for a factor of 300 rows.

    Raises:
        ValueError: If an argument is none of these. In `compile`, if the model has no
            evidence or is too large; in `fit`, if there are sample weights, or more or
            fewer examples than the priors' `data_size`.

    Example:

    >>> prior = bt.NormalPrior(hp["precision"], data_size=len(x))
    >>> model.compile(
    ...     loss=bt.losses.GaussianLikelihood(hp["noise"]),
    ...     method=bt.ConjugateGradient(),
    ...     objective=bt.objectives.LaplaceEvidence())
    >>> model.fit(x, y, batch_size=len(x), epochs=500)

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

    def __init__(self, hessian="ggn", max_weights=2000):
        if hessian not in _LOG_DETERMINANTS:
            raise ValueError(
                f"`hessian` must be one of {tuple(_LOG_DETERMINANTS)}. "
                f"Received: hessian={hessian!r}"
            )
        self.hessian = hessian
        self.max_weights = count(max_weights, "max_weights", 1)

    def check(self, network):
        """Check that the model has an evidence."""
        laplace_checks.check_one_output(network)
        super().check(network)
        laplace_checks.check_penalties_are_priors(network)
        moved, counts = laplace_checks.trace(network)
        laplace_checks.check_deterministic(network, moved)
        if self.hessian in ("exact", "ggn"):
            laplace_checks.check_size(network, self.hessian, self.max_weights)
        else:
            laplace_checks.check_layers(network, self.hessian, moved, counts)
        if self.hessian == "kronecker":
            laplace_checks.check_factor_precisions(network)
            laplace_checks.check_factor_sizes(network, self.max_weights)

    def data_size(self, network):
        """N of the priors."""
        return laplace_checks.normal_priors(network)[0].data_size

    def outer_loss(self, network, weights, hyperparameters, batch):
        """Q = −log p(D|h) / N."""
        parts = self.parts(network, weights, hyperparameters, batch)
        return self.loss_of(network, parts, weights)

    def parts(self, network, weights, hyperparameters, batch, precisions=None):
        """What the evidence is made of; arguments as of `outer_loss`.

        Args:
            precisions: What H is to have of `self.precisions(...)`; defaults to that.

        Returns:
            Dict of "log_likelihood", "log_prior" and "log_determinant", log |H|, all
            scalars.
        """
        if precisions is None:
            precisions = self.precisions(network, weights, hyperparameters)
        likelihood, data_size = _likelihood(network), self.data_size(network)
        term = DataTerm(network, likelihood, hyperparameters, batch, data_size)
        log_determinant = _LOG_DETERMINANTS[self.hessian](term, weights, precisions)
        with network.at(weights, hyperparameters):
            pairs = zip(laplace_checks.normal_priors(network), weights, strict=True)
            log_prior = tf.add_n([prior.log_prob(w) for prior, w in pairs])
        return {
            "log_likelihood": -term.value(weights),
            "log_prior": log_prior,
            "log_determinant": tf.cast(log_determinant, log_prior.dtype),
        }

    def loss_of(self, network, parts, weights):
        """Q of its parts."""
        size = sum(w.shape.num_elements() for w in weights)
        log_volume = size * math.log(2 * math.pi) - parts["log_determinant"]
        evidence = parts["log_likelihood"] + parts["log_prior"] + 0.5 * log_volume
        return -evidence / self.data_size(network)

    def precisions(self, network, weights, hyperparameters):
        """A, a list of tensors shaped as the weights."""
        priors = laplace_checks.normal_priors(network)
        with network.at(weights, hyperparameters):
            return [
                tf.broadcast_to(mean_value(prior.precision, w.dtype), w.shape)
                for prior, w in zip(priors, weights, strict=True)
            ]

    def log_precision(self, network, weights, hyperparameters, precisions):
        """log |A| and, with Gaussian noise, N C log λ, C the number of outputs."""
        logs = [tf.reduce_sum(tf.math.log(a)) for a in precisions]
        likelihood = _likelihood(network)
        if isinstance(likelihood, GaussianLikelihood):
            with network.at(weights, hyperparameters):
                noise = mean_value(likelihood.precision, weights[0].dtype)
            outputs = keras.tree.flatten(network.outputs)[0].shape[-1]
            logs.append(self.data_size(network) * outputs * tf.math.log(noise))
        return tf.add_n(logs)

    def logs(self, network, outer_loss):
        """The evidence itself, log p(D|h)."""
        return {"log_evidence": -self.data_size(network) * outer_loss}

    def get_config(self):
        """Arguments to make this objective again."""
        return {"hessian": self.hessian, "max_weights": self.max_weights}


def _likelihood(network):
    [loss] = likelihoods(network, "LaplaceEvidence")
    return loss
