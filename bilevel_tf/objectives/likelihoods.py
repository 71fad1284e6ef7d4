"""Losses that are negative log likelihoods."""

import types
from typing import Any

import keras

from bilevel_tf.losses import GaussianLikelihood
from bilevel_tf.network.masks import find_masked_outputs, name_mask_makers
from bilevel_tf.network.network import Network
from bilevel_tf.optimizers.tuned import TunedOptimizer

_CLASSES = {
    keras.losses.sparse_categorical_crossentropy: (
        keras.losses.SparseCategoricalCrossentropy
    ),
    keras.losses.categorical_crossentropy: keras.losses.CategoricalCrossentropy,
    keras.losses.binary_crossentropy: keras.losses.BinaryCrossentropy,
}
_LIKELIHOODS = (*_CLASSES.values(), GaussianLikelihood)


def loss_object(given: Any) -> Any:
    """Make a loss object from the name or function of a likelihood.

    Args:
        given: A loss as `compile` takes it.

    Returns:
        A `keras.losses.Loss`, or the function if it is no known likelihood.
    """
    loss = keras.losses.get(given)
    known = isinstance(loss, types.FunctionType) and loss in _CLASSES
    return _CLASSES[loss]() if known else loss


def likelihoods(network: Network, objective: str) -> list[keras.losses.Loss]:
    """Return the losses, one per output, each a mean negative log likelihood.

    Args:
        network: The compiled network.
        objective: Name of the objective that needs likelihoods, for errors.

    Returns:
        The losses in the order of the outputs.

    Raises:
        ValueError: If a loss is not a mean negative log likelihood, or if losses are
            weighted.
    """
    weights = network.loss_weights
    if weights is not None:
        raise ValueError(
            f"`loss_weights` must be left out under {objective}: a weighted log "
            "likelihood is not a log likelihood. "
            f"Received: loss_weights={weights!r}"
        )
    outputs = keras.tree.flatten(network.outputs)
    parts = zip(network.losses, outputs, network.output_names, strict=True)
    return [_check_likelihood(*part, objective) for part in parts]


def check_unweighted(sample_weight: Any, objective: str) -> None:
    """Raise a `ValueError` if examples have weights.

    Args:
        sample_weight: Weights of the examples, or `None`.
        objective: Name of the objective that needs likelihoods, for errors.
    """
    if sample_weight is not None:
        raise ValueError(
            f"`sample_weight` must be left out under {objective}: a weighted log "
            "likelihood is not a log likelihood. The same holds for `class_weight` and "
            "for weights in a data set. "
            f"Received: sample_weight of type {type(sample_weight).__name__}"
        )


def check_unmasked(network: Network, objective: str) -> None:
    """Raise a `ValueError` if an output carries a mask.

    Args:
        network: The compiled network.
        objective: Name of the objective that needs likelihoods, for errors.
    """
    masked = find_masked_outputs(network)
    if masked:
        raise ValueError(
            f"{objective} cannot take masks of outputs into account: the loss would "
            "be a mean over what the mask keeps, whereas the priors count all "
            "`data_size` examples. Leave out the mask of "
            f"{name_mask_makers(network)}, or tune on validation data with "
            "objective=bilevel_tf.objectives.ValidationLoss(). "
            f"Received: output '{masked[0]}' with a mask"
        )


def check_no_weight_decay(network: Network, objective: str) -> None:
    """Raise a `ValueError` if the optimizer decays weights.

    Args:
        network: The compiled network.
        objective: Name of the objective that needs likelihoods, for errors.
    """
    optimizer = network.stepping_optimizer
    if isinstance(optimizer, TunedOptimizer):
        decay = optimizer.functions.get(
            "weight_decay", optimizer.config["weight_decay"]
        )
    else:
        decay = optimizer.weight_decay
    tuned = not isinstance(decay, (int, float, type(None)))
    if tuned or decay:
        raise ValueError(
            f"`weight_decay` of the optimizer must be left out under {objective}: "
            "the priors of the weights take its place. "
            f"Received: weight_decay={decay}"
        )


def _check_likelihood(
    given: Any, output: Any, name: str, objective: str
) -> keras.losses.Loss:
    """Return the loss of an output as an object if it is a likelihood."""
    loss = loss_object(given)
    fault = None
    if given is None:
        fault = f"leaves output '{name}' without a likelihood"
    elif not isinstance(loss, _LIKELIHOODS):
        fault = "is not a negative log likelihood"
    elif len(output.shape) != 2:
        fault = (
            f"takes the mean over all positions of an output of shape {output.shape}, "
            "although a likelihood has the sum; the output has to be (batch, C)"
        )
    elif loss.reduction not in ("sum_over_batch_size", "mean"):
        fault = f"has reduction={loss.reduction!r} in place of a mean over examples"
    elif getattr(loss, "label_smoothing", 0.0):
        fault = "has label smoothing, with which it is not a likelihood"
    elif getattr(loss, "ignore_class", None) is not None:
        fault = "ignores a class, with which it is not a likelihood"
    elif isinstance(loss, keras.losses.BinaryCrossentropy) and output.shape[-1] != 1:
        fault = (
            f"takes the mean over {output.shape[-1]} outputs, although a likelihood "
            "has the sum; give each of them an output layer of its own"
        )
    if fault:
        raise ValueError(
            f"{objective} needs `loss` to be a mean negative log likelihood: "
            "SparseCategoricalCrossentropy, CategoricalCrossentropy, "
            "BinaryCrossentropy of one output, or "
            "bilevel_tf.losses.GaussianLikelihood in "
            f"place of squared errors. Received: loss={given!r}, which {fault}."
        )
    return loss
