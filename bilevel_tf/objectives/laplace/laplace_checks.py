"""What a model must be for its evidence to be defined."""

import math

import keras
import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.objectives.laplace.layer_capture import (
    calls_recorded,
    capturable_layers,
    kernel_and_bias,
)
from bilevel_tf.regularizers.normal_prior import NormalPrior


def normal_priors(model):
    """The `NormalPrior` of every trainable variable, in order.

    Raises:
        ValueError: If a variable has no prior, or one that is not normal, or if priors
            disagree on the number of examples.
    """
    variables = model.trainable_variables
    bare = [v.path for v in variables if v.regularizer is None]
    if bare:
        raise ValueError(
            f"{', '.join(bare)} have no prior. Under an improper one the evidence is "
            "not defined: give every trained weight, biases too, a "
            "bilevel_tf.NormalPrior as its regularizer, or freeze it."
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


def _describe(regularizer):
    name = type(regularizer).__name__
    if name == "L2":
        return f"L2, which is NormalPrior(2 * data_size * {regularizer.l2!r})"
    return f"{name}, which is not the logarithm of a normal density"


def check_one_output(model):
    """Raise a `ValueError` unless there is one output `[batch, C]`."""
    if len(model.outputs) != 1:
        raise ValueError(
            "LaplaceEvidence needs a model with one output. Received: "
            f"{len(model.outputs)} of them, {model.output_names}"
        )
    if len(model.outputs[0].shape) != 2:
        raise ValueError(
            "LaplaceEvidence needs one prediction per example, an output of shape "
            f"(batch, C). Received: an output of shape {model.outputs[0].shape}"
        )


def check_penalties_are_priors(model):
    """Raise a `ValueError` if something other than priors penalises the network."""
    for layer in model._flatten_layers(include_self=False):
        if layer.activity_regularizer is not None:
            raise ValueError(
                f"`activity_regularizer` of {type(layer).__name__} '{layer.name}' is "
                "neither likelihood nor prior, so that LaplaceEvidence has no use for "
                "it. Leave it out."
            )


def check_deterministic(model, moved):
    """Raise a `ValueError` where a pass in training draws random numbers.

    Args:
        model: The model.
        moved: As `trace` finds it.
    """
    for layer in _find_leaves(model):
        seeds = [v for v in layer.variables if v.name == "seed_generator_state"]
        if any(id(v) in moved for v in seeds):
            raise ValueError(
                "LaplaceEvidence is defined for a network without randomness. "
                f"Received: {type(layer).__name__} '{layer.name}', which is random in "
                "training. Leave it out."
            )


def trace(model):
    """What a pass in training does, found without data.

    Returns:
        Ids of the non-trainable variables that it assigns to, and the number of calls
        of every capturable layer, by the layer's id.
    """
    moved, counts = set(), {}

    def run(inputs):
        layers = capturable_layers(model)
        with keras.StatelessScope() as scope, calls_recorded(layers) as calls:
            model(inputs, training=True)
        counts.update({key: len(made) for key, made in calls.items()})
        for variable in model.non_trainable_variables:
            if scope.get_current_value(variable) is not None:
                moved.add(id(variable))

    specs = keras.tree.map_structure(
        lambda t: tf.TensorSpec(t.shape, t.dtype), model._inputs_struct
    )
    tf.function(run, autograph=False).get_concrete_function(specs)
    return moved, counts


def _find_leaves(model):
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if not isinstance(layer, keras.Model)]


def check_size(model, hessian, max_weights):
    """Raise a `ValueError` if a dense Hessian of the model would be too large."""
    size = sum(v.shape.num_elements() for v in model.trainable_variables)
    if size > max_weights:
        raise ValueError(
            f"hessian={hessian!r} has a matrix of {size:,}² entries, "
            f"{_format(size**2)}; max_weights={max_weights:,}. Use hessian='kronecker' "
            f"or hessian='diagonal' ({_format(size)}) for a network of Dense and "
            "Conv layers, or raise `max_weights`."
        )


def check_factor_sizes(model, max_weights):
    """Raise a `ValueError` if a Kronecker factor of the model would be too large."""
    for layer in capturable_layers(model):
        kernel, _ = kernel_and_bias(layer)
        *rows, columns = kernel.shape
        side = max(math.prod(rows), columns)
        if side > max_weights:
            size = math.prod(kernel.shape)
            raise ValueError(
                f"hessian='kronecker' needs the eigenvalues of a matrix of {side:,}² "
                f"entries for '{layer.name}', {_format(side**2)}; "
                f"max_weights={max_weights:,}. Use hessian='diagonal' "
                f"({_format(size)}), or raise `max_weights`."
            )


def check_factor_precisions(model):
    """Raise a `ValueError` if a kernel has more than one precision."""
    for layer in capturable_layers(model):
        kernel, _ = kernel_and_bias(layer)
        precision = kernel.regularizer.precision
        if isinstance(precision, Hyperparameter) and precision.scale.shape != ():
            raise ValueError(
                "hessian='kronecker' takes one precision per kernel: others do not "
                f"factor. Received: '{precision.name}' of shape "
                f"{precision.scale.shape} on '{kernel.path}'. Use "
                "hessian='diagonal' or hessian='ggn'."
            )


def check_layers(model, hessian, moved, counts):
    """Raise a `ValueError` if a Hessian by layers cannot describe a layer.

    Args:
        model: The model.
        hessian: Name of the Hessian.
        moved: Ids of the variables that a pass assigns to, as `trace` finds them.
        counts: How often every layer is called, as `trace` finds it.
    """
    layers = capturable_layers(model)
    for layer in layers:
        both = [v for v in kernel_and_bias(layer) if v is not None]
        frozen = [v.name for v in both if not v.trainable]
        if frozen:
            raise ValueError(
                f"hessian={hessian!r} needs the kernel and the bias of a layer to be "
                f"trained, or both frozen, and of '{layer.name}' the {frozen[0]} is "
                "frozen alone. Use hessian='ggn' or hessian='exact'."
            )
        if counts[id(layer)] != 1:
            raise ValueError(
                f"hessian={hessian!r} needs every layer to be called once, and "
                f"'{layer.name}' is called {counts[id(layer)]} times. Use "
                "hessian='ggn' or hessian='exact'."
            )
    captured = {id(v) for layer in layers for v in kernel_and_bias(layer)}
    for layer in _find_leaves(model):
        weights = {id(v) for v in layer.trainable_variables} - captured
        if weights or any(id(v) in moved for v in layer.non_trainable_variables):
            raise ValueError(
                f"hessian={hessian!r} is for trained weights of Dense and Conv "
                "layers, and examples that do not see each other. Received: "
                f"{type(layer).__name__} '{layer.name}'. Freeze it, or use "
                "hessian='ggn' or hessian='exact'."
            )


def _format(entries):
    """The size of this many numbers in double precision, in words."""
    size = 8.0 * entries
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
