"""The evidence lower bound of networks with a posterior over their weights."""

import keras

from bilevel_tf.hyperparameters.references import references
from bilevel_tf.layers.variational.variational_layer import variational_layers
from bilevel_tf.objectives.bayesian import BayesianObjective


@keras.saving.register_keras_serializable("bilevel_tf")
class ELBO(BayesianObjective):
    """The negative evidence lower bound per example, on training data.

    Q = L = E_q[−log p(y | x, w)] averaged over the examples + KL(q(w) ‖ p(w)) / N, the
    training loss of a model of variational layers, in nats. Its expectation is taken
    at the draw of the pass. Hyperparameters of the priors and the likelihood are judged
    by the same bound as the posterior is, so that at the trained posterior dQ/dλ is
    ∂Q/∂λ: `DARTS(second_order=None)`, which needs no second derivatives, is exact
    there, and `GravesUpdate` has the priors' best parameters in closed form. No
    validation data is needed.

    Raises:
        ValueError: At `compile`, if the model has no variational layer, its priors
            disagree on `data_size`, a loss is not the mean negative log likelihood of
            one prediction per example, or a penalty or weight decay comes on top of the
            bound. At `fit`, if there are sample or class weights, or training arrays
            of another size. Of a dataset the size is not known, and not checked.

    Example:

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

    def check(self, network):
        """Check that the training loss is the bound."""
        super().check(network)
        _check_unpenalized(network)
        for variable in network.weights:
            # It lacks the prior's normaliser, without which a precision goes to zero.
            for reference in references(variable.regularizer):
                raise ValueError(
                    f"'{reference.name}' is tuned in a regularizer of "
                    f"'{variable.path}', which is no part of the bound. Give it to the "
                    "prior of a variational layer, or make it a number."
                )

    def data_size(self, network):
        """N of the priors, or raise a `ValueError` if they disagree."""
        sizes = {}
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

    def outer_loss(self, network, weights, hyperparameters, batch):
        """Q, the training loss."""
        return self.inner_loss(network, weights, hyperparameters, batch)


def _check_unpenalized(network):
    """Raise a `ValueError` where means have a penalty beside the divergence."""
    for layer in variational_layers(network.layers, "ELBO"):
        for name in _PENALTIES:
            penalty = getattr(layer, name)
            # One that is tuned has an error of its own.
            if penalty is not None and not references(penalty):
                raise ValueError(
                    f"`{name}` of '{layer.name}' must be None under ELBO: its prior is "
                    "in the bound, and a penalty is not. From a Keras model that has "
                    f"one: tune={{{layer.name!r}: {{..., {name!r}: None}}}}. "
                    f"Received: {name}={type(penalty).__name__}"
                )


_PENALTIES = ("kernel_regularizer", "bias_regularizer", "activity_regularizer")
