"""Losses that are negative log likelihoods."""

import types

import keras
import tensorflow_probability as tfp

from bilevel_tf.losses import GaussianLikelihood
from bilevel_tf.optimizers.tuned import TunedOptimizer

tfd = tfp.distributions


_CLASSES = {
    keras.losses.sparse_categorical_crossentropy: (
        keras.losses.SparseCategoricalCrossentropy
    ),
    keras.losses.categorical_crossentropy: keras.losses.CategoricalCrossentropy,
    keras.losses.binary_crossentropy: keras.losses.BinaryCrossentropy,
}
_LIKELIHOODS = (*_CLASSES.values(), GaussianLikelihood)


def loss_object(given):
    """A loss as `compile` takes it, by name or function, as an object where it can be.

    Functions that are no likelihood stay what they are.
    """
    loss = keras.losses.get(given)
    known = isinstance(loss, types.FunctionType) and loss in _CLASSES
    return _CLASSES[loss]() if known else loss


def likelihoods(network, objective):
    """The model's losses, one per output, each a mean negative log likelihood.

    Args:
        network: The compiled `Network`.
        objective: Name of what needs them, for errors.

    Returns:
        List of `keras.losses.Loss` objects in the order of the outputs.

    Raises:
        ValueError: If a loss is none, or losses are weighted.
    """
    weights = network.loss_weights
    if weights is not None:
        raise ValueError(
            f"`loss_weights` must be left out under {objective}: a weighted log "
            f"likelihood is none. Received: loss_weights={weights!r}"
        )
    outputs = keras.tree.flatten(network.outputs)
    return [
        _likelihood(loss, output, objective)
        for loss, output in zip(network.losses, outputs, strict=True)
    ]


def check_unweighted(sample_weight, objective):
    """Raise a `ValueError` if examples have weights; arguments as of `likelihoods`."""
    if sample_weight is not None:
        raise ValueError(
            f"`sample_weight` must be left out under {objective}: a weighted log "
            "likelihood is none."
        )


def check_no_weight_decay(network, objective):
    """Raise a `ValueError` if the optimizer decays weights."""
    optimizer = network.stepping_optimizer
    if isinstance(optimizer, TunedOptimizer):
        decay = optimizer.functions.get(
            "weight_decay", optimizer.config["weight_decay"]
        )
    else:
        decay = optimizer.weight_decay
    if decay:
        raise ValueError(
            f"`weight_decay` of the optimizer must be left out under {objective}: "
            f"priors hold the weights. Received: weight_decay={decay}"
        )


def _likelihood(given, output, objective):
    loss = loss_object(given)
    fault = None
    if not isinstance(loss, _LIKELIHOODS):
        fault = "is not a negative log likelihood"
    elif len(output.shape) != 2:
        fault = (
            f"takes the mean over all positions of an output of shape {output.shape}, "
            "where a likelihood has the sum; the output has to be (batch, C)"
        )
    elif loss.reduction not in ("sum_over_batch_size", "mean"):
        fault = f"has reduction={loss.reduction!r} in place of a mean over examples"
    elif getattr(loss, "label_smoothing", 0.0):
        fault = "has label smoothing, with which it is no likelihood"
    elif getattr(loss, "ignore_class", None) is not None:
        fault = "ignores a class, with which it is no likelihood"
    elif isinstance(loss, keras.losses.BinaryCrossentropy) and output.shape[-1] != 1:
        fault = (
            f"takes the mean over {output.shape[-1]} outputs, where a likelihood has "
            "the sum; give each an output layer of its own"
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
