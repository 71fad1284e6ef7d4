"""What a model must fulfil for its evidence to be defined."""

import math

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.network.network import Network
from bilevel_tf.objectives.laplace.layer_capture import (
    calls_recorded,
    capturable_layers,
    kernel_and_bias,
)
from bilevel_tf.regularizers.normal_prior import NormalPrior


def normal_priors(network: Network) -> list[NormalPrior]:
    """Return the `NormalPrior` of every trainable variable, in order.

    Raises:
        ValueError: If a variable has no prior or one that is not normal, or if priors
            disagree on the number of examples.
    """
    variables = network.weights
    bare = [v.path for v in variables if v.regularizer is None]
    if bare:
        raise ValueError(
            f"{', '.join(bare)} have no prior. Without one the prior is improper, and "
            "the evidence is not defined. Give every trained weight, including biases, "
            "a bilevel_tf.NormalPrior as its regularizer, or freeze it. "
            "Received: regularizer=None"
        )
    for variable in variables:
        if not isinstance(variable.regularizer, NormalPrior):
            raise ValueError(
                "LaplaceEvidence needs a bilevel_tf.NormalPrior as the regularizer of "
                f"'{variable.path}'. Received: {_describe(variable.regularizer)}"
            )
    priors = [v.regularizer for v in variables]
    sizes = {prior.data_size for prior in priors}
    if len(sizes) != 1:
        raise ValueError(
            "All priors must have the same `data_size`, the number of training "
            f"examples. Received: {sorted(sizes)}"
        )
    return priors


def _describe(regularizer: keras.regularizers.Regularizer) -> str:
    name = type(regularizer).__name__
    if name == "L2":
        return f"L2, which is NormalPrior(2 * data_size * {regularizer.l2!r})"
    return f"{name}, which is not the logarithm of a normal density"


def check_one_output(network: Network) -> None:
    """Raise a `ValueError` unless there is one output `[batch, C]`."""
    outputs = keras.tree.flatten(network.outputs)
    if len(outputs) != 1:
        raise ValueError(
            "LaplaceEvidence needs a model with one output. Received: "
            f"{len(outputs)} of them, {network.output_names}"
        )
    if len(outputs[0].shape) != 2:
        raise ValueError(
            "LaplaceEvidence needs one prediction per example, an output of shape "
            f"(batch, C). Received: an output of shape {outputs[0].shape}"
        )


def check_penalties_are_priors(network: Network) -> None:
    """Raise a `ValueError` if the loss has a penalty that is not a prior."""
    for layer in network.layers:
        if layer.activity_regularizer is not None:
            raise ValueError(
                f"`activity_regularizer` of {type(layer).__name__} '{layer.name}' is "
                "neither likelihood nor prior, so that LaplaceEvidence cannot take it "
                "into account. Leave it out. Received: activity_regularizer="
                f"{type(layer.activity_regularizer).__name__}"
            )


def check_deterministic(network: Network, moved: set[int]) -> None:
    """Raise a `ValueError` if a pass in training draws random numbers.

    Args:
        network: The compiled network.
        moved: Ids of the variables that a pass assigns to, from `trace`.
    """
    for layer in _list_leaves(network):
        seeds = [v for v in layer.variables if v.name == "seed_generator_state"]
        if any(id(v) in moved for v in seeds):
            raise ValueError(
                "LaplaceEvidence needs a network without randomness. Leave the layer "
                f"out. Received: {type(layer).__name__} '{layer.name}', which is "
                "random in training"
            )


def trace(network: Network) -> tuple[set[int], dict[int, int]]:
    """Trace a pass in training, without data, to find out what it does.

    Returns:
        The ids of the non-trainable variables that the pass assigns to, and a dict from
        the id of every capturable layer to the number of its calls.
    """
    moved, counts = set(), {}

    def run(inputs):
        layers = capturable_layers(network)
        with keras.StatelessScope() as scope, calls_recorded(layers) as calls:
            network(inputs, training=True)
        counts.update({key: len(made) for key, made in calls.items()})
        for variable in network.non_trainable_variables:
            if scope.get_current_value(variable) is not None:
                moved.add(id(variable))

    specs = keras.tree.map_structure(
        lambda t: tf.TensorSpec(t.shape, t.dtype), network.inputs
    )
    tf.function(run, autograph=False).get_concrete_function(specs)
    return moved, counts


def _list_leaves(network: Network) -> list[keras.Layer]:
    return [layer for layer in network.layers if not isinstance(layer, keras.Model)]


def check_size(network: Network, hessian: str, max_weights: int) -> None:
    """Raise a `ValueError` if a dense Hessian of the model would be too large."""
    size = sum(v.shape.num_elements() for v in network.weights)
    if size > max_weights:
        raise ValueError(
            f"hessian={hessian!r} has a matrix of {size:,}² entries, "
            f"{_format_memory(size**2)}; max_weights={max_weights:,}. Use "
            "hessian='kronecker' or hessian='diagonal' "
            f"({_format_memory(size)}) for a network of Dense and "
            "Conv layers, or raise `max_weights`."
        )


def check_factor_sizes(network: Network, max_weights: int) -> None:
    """Raise a `ValueError` if a Kronecker factor of the model would be too large."""
    for layer in capturable_layers(network):
        kernel, _ = kernel_and_bias(layer)
        *rows, columns = kernel.shape
        side = max(math.prod(rows), columns)
        if side > max_weights:
            size = math.prod(kernel.shape)
            raise ValueError(
                f"hessian='kronecker' needs the eigenvalues of a matrix of {side:,}² "
                f"entries for '{layer.name}', {_format_memory(side**2)}; "
                f"max_weights={max_weights:,}. Use hessian='diagonal' "
                f"({_format_memory(size)}), or raise `max_weights`."
            )


def check_factor_precisions(network: Network) -> None:
    """Raise a `ValueError` if a kernel has more than one precision."""
    for layer in capturable_layers(network):
        kernel, _ = kernel_and_bias(layer)
        precision = kernel.regularizer.precision
        if isinstance(precision, Hyperparameter) and precision.scale.shape != ():
            raise ValueError(
                "hessian='kronecker' takes one precision per kernel, because the sum "
                "with other precisions has no Kronecker factors. "
                f"Received: '{precision.name}' of shape "
                f"{precision.scale.shape} on '{kernel.path}'. Use "
                "hessian='diagonal' or hessian='ggn'."
            )


def check_layers(
    network: Network, hessian: str, moved: set[int], counts: dict[int, int]
) -> None:
    """Raise a `ValueError` if a Hessian by layers cannot have one of the layers.

    Args:
        network: The compiled network.
        hessian: The name of the Hessian, "kronecker" or "diagonal".
        moved: Ids of the variables that a pass assigns to, from `trace`.
        counts: Number of calls by the id of a layer, from `trace`.
    """
    layers = capturable_layers(network)
    for layer in layers:
        both = [v for v in kernel_and_bias(layer) if v is not None]
        frozen = [v.name for v in both if not v.trainable]
        if frozen:
            raise ValueError(
                f"hessian={hessian!r} needs the kernel and the bias of a layer to be "
                f"both trained or both frozen, and of '{layer.name}' the {frozen[0]} "
                "is frozen alone. Use hessian='ggn' or hessian='exact'."
            )
        if counts[id(layer)] != 1:
            raise ValueError(
                f"hessian={hessian!r} needs every layer to be called once, and "
                f"'{layer.name}' is called {counts[id(layer)]} times. Use "
                "hessian='ggn' or hessian='exact'."
            )
    captured = {id(v) for layer in layers for v in kernel_and_bias(layer)}
    for layer in _list_leaves(network):
        weights = {id(v) for v in layer.trainable_variables} - captured
        if weights or any(id(v) in moved for v in layer.non_trainable_variables):
            raise ValueError(
                f"hessian={hessian!r} is for trained weights of Dense and Conv "
                "layers, and for examples that do not see each other. Received: "
                f"{type(layer).__name__} '{layer.name}'. Freeze it, or use "
                "hessian='ggn' or hessian='exact'."
            )


def _format_memory(entries: int) -> str:
    """Write the size of that many numbers in double precision."""
    size = 8.0 * entries
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
