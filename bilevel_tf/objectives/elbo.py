"""The evidence lower bound of networks with a posterior over their weights."""

import keras

from bilevel_tf.layers.hyper_layer import references
from bilevel_tf.layers.variational import variational_layers
from bilevel_tf.objectives.likelihoods import (
    check_no_weight_decay,
    check_unweighted,
    likelihoods,
)
from bilevel_tf.objectives.objective import Objective


@keras.saving.register_keras_serializable("bilevel_tf")
class ELBO(Objective):
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
    ...     method=bt.DARTS(second_order=None),
    ... )

    Reference:
        Graves, "Practical variational inference for neural networks", 2011.
    """

    suggested_method = "bilevel_tf.DARTS(second_order=None)"

    def check(self, model):
        """Check that the training loss is the bound."""
        likelihoods(model, "ELBO")
        check_no_weight_decay(model, "ELBO")
        _data_size(model)
        _check_unpenalized(model)
        for variable in model.trainable_variables:
            # It lacks the prior's normaliser, without which a precision goes to zero.
            for reference in references(variable.regularizer):
                raise ValueError(
                    f"'{reference.name}' is tuned in a regularizer of "
                    f"'{variable.path}', which is no part of the bound. Give it to the "
                    "prior of a variational layer, or make it a number."
                )

    def prepare(self, model, x, y, sample_weight):
        """The training data as it is, after checks.

        Raises:
            ValueError: If arrays have another number of examples than the priors were
                given, or there are sample weights.
        """
        check_unweighted(sample_weight, "ELBO")
        data_size = _data_size(model)
        shape = getattr(keras.tree.flatten(x)[0], "shape", None)
        if shape and shape[0] != data_size:
            raise ValueError(
                f"The priors have data_size={data_size}, and training has "
                f"{shape[0]} examples. Make them with data_size={shape[0]} (what "
                "`validation_split` takes away does not count)."
            )
        return x, y, sample_weight

    def inner_step(self, model, x, y, sample_weight):
        """As of every objective; weights may also come with a dataset or classes."""
        check_unweighted(sample_weight, "ELBO")
        return super().inner_step(model, x, y, sample_weight)

    def outer_loss(self, network, weights, hyperparameters, batch):
        """Q, the training loss."""
        return self.inner_loss(network, weights, hyperparameters, batch)


def _check_unpenalized(model):
    """Raise a `ValueError` where means have a penalty beside the divergence."""
    for layer in variational_layers(model, "ELBO"):
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


def _data_size(model):
    """N of the priors, or raise a `ValueError` if they disagree."""
    sizes = {}
    for layer in variational_layers(model, "ELBO"):
        for posterior in layer.posteriors():
            sizes.setdefault(posterior.prior.data_size, layer.name)
    if len(sizes) > 1:
        found = ", ".join(f"{size} in '{name}'" for size, name in sizes.items())
        raise ValueError(
            "ELBO needs all priors to have one `data_size`, the number of training "
            f"examples. Received: {found}"
        )
    return next(iter(sizes))
