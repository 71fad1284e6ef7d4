"""The evidence lower bound of networks with a posterior over their weights."""

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.references import references
from bilevel_tf.layers.variational.variational_layer import variational_layers
from bilevel_tf.network.network import Network
from bilevel_tf.objectives.bayesian import BayesianObjective


@keras.saving.register_keras_serializable("bilevel_tf")
class ELBO(BayesianObjective):
    """The negative evidence lower bound per example, on training data.

    Q = L = E_q[−log p(y | x, w)] averaged over the examples + KL(q(w) ‖ p(w)) / N

    in nats. This is the training loss of a model of variational layers, whose posterior
    is q and whose priors are p; N is the number of training examples. The expectation
    is estimated with one draw of the weights per pass.

    Hyperparameters of the priors and of the likelihood are judged by the same bound as
    the posterior. At the trained posterior dQ/dλ is therefore ∂Q/∂λ, and
    `DARTS(second_order=None)`, which needs no second derivatives, is exact there.
    `GravesUpdate` sets parameters of normal priors to their best values in closed form.
    No validation data are needed. ELBO takes no arguments.

    Raises:
        ValueError: At `compile`, if the model has no variational layer, if its priors
            disagree on `data_size`, if a loss is not the mean negative log likelihood
            of one prediction per example, or if there are penalties or weight decay
            beside the bound. At `fit`, if there are sample or class weights, or if the
            training data have another number of examples than `data_size`. Of a data
            set this is checked to within a batch, and of a generator not at all.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.Positive(initial=1.0))
    >>> prior = bt.NormalPrior(hp["precision"], data_size=100)
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.VariationalDense(2, prior=prior)(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile(
    ...     "adam",
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     objective=bt.ELBO(),
    ...     method=bt.methods.DARTS(second_order=None),
    ... )

    Reference:
        Graves, "Practical variational inference for neural networks", 2011.
    """

    suggested_method = "bilevel_tf.methods.DARTS(second_order=None)"

    def check(self, network: Network) -> None:
        """Check that the training loss is the bound.

        Raises:
            ValueError: If it is not.
        """
        super().check(network)
        _check_unpenalized(network)
        for variable in network.weights:
            # A regularizer lacks the prior's normaliser, so that a tuned precision
            # would go to zero.
            for reference in references(variable.regularizer):
                raise ValueError(
                    f"'{reference.name}' is tuned in a regularizer of "
                    f"'{variable.path}', which is no part of the bound. Give it to the "
                    "prior of a variational layer, or make it a number. Received: "
                    f"{type(variable.regularizer).__name__} with '{reference.name}'"
                )

    def data_size(self, network: Network) -> int:
        """Return N, the number of training examples that the priors were given.

        Raises:
            ValueError: If the priors disagree on it.
        """
        sizes: dict[int, str] = {}
        for layer in variational_layers(network.layers, "ELBO"):
            for posterior in layer.posteriors():
                sizes.setdefault(posterior.prior.data_size, layer.name)
        if len(sizes) > 1:
            found = ", ".join(f"{size} in '{name}'" for size, name in sizes.items())
            raise ValueError(
                "ELBO needs all priors to have one `data_size`, the number of training "
                f"examples. Received: {found}"
            )
        return next(iter(sizes))

    def outer_loss(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """Return Q, which is the training loss; arguments as in `Objective`."""
        return self.inner_loss(network, weights, hyperparameters, batch)


def _check_unpenalized(network: Network) -> None:
    """Raise a `ValueError` if posterior means have a penalty beside the divergence."""
    for layer in variational_layers(network.layers, "ELBO"):
        for name in _PENALTIES:
            penalty = getattr(layer, name)
            # `check` has another error for penalties that are tuned.
            if penalty is not None and not references(penalty):
                raise ValueError(
                    f"`{name}` of '{layer.name}' must be None under ELBO: its prior is "
                    "in the bound, and a penalty is not. If the layer comes from a "
                    "Keras model that has a penalty, convert the model with "
                    f"tune={{{layer.name!r}: {{..., {name!r}: None}}}}. "
                    f"Received: {name}={type(penalty).__name__}"
                )


_PENALTIES = ("kernel_regularizer", "bias_regularizer", "activity_regularizer")
