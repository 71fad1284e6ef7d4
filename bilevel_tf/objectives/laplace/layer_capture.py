"""What enters Dense and Conv layers, and how the likelihood depends on what leaves.

The Gauss-Newton matrix of such a layer's kernel is a sum, over examples, over pairs of
positions t, u and over the columns of a root of the likelihood's curvature, of
(a_t a_uᵀ) ⊗ (g_t g_uᵀ). Here a are the inputs of the layer, of a convolution the
patches of its inputs, and g the derivatives by its outputs before the activation.
"""

import contextlib
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.linear_map import Offset, is_registered, linear_maps


class LayerRecord(NamedTuple):
    """One layer in one pass.

    Attributes:
        kernel: The variable that multiplies a.
        bias: The variable that is added, or `None`.
        inputs: a, `[batch, positions, in]`; a Dense layer on vectors has 1 position.
        slopes: g, `[C, batch, positions, out]`.
    """

    kernel: keras.Variable
    bias: keras.Variable | None
    inputs: tf.Tensor
    slopes: tf.Tensor


def capturable(layer):
    """Whether this is a layer whose inputs and slopes are enough.

    It applies one weight, whose units all see the same patches, perhaps an offset, and
    an activation. A subclass might compute something else.
    """
    if not is_registered(type(layer)) and type(layer).call is not HyperLayer.call:
        return False
    maps = linear_maps(layer)
    if not maps:
        return False
    kernel, *rest = maps
    offsets = len(rest) < 2 and all(isinstance(m, Offset) for m in rest)
    return kernel.patches is not None and offsets


def _read_maps(layer: keras.Layer) -> list[Any]:
    """The maps of a capturable layer: one with `patches`, and perhaps an `Offset`."""
    return linear_maps(layer) or []


def kernel_and_bias(layer):
    """The variables of a capturable layer; the bias may be `None`."""
    weights = [getattr(layer, linear_map.weight) for linear_map in _read_maps(layer)]
    return weights if len(weights) == 2 else [*weights, None]


def capturable_layers(network):
    """The layers that have trained weights and can be captured."""
    return [la for la in network.layers if capturable(la) and la.trainable_variables]


def captured(term, weights, layers):
    """The `LayerRecord` of each layer, with slopes for all of the data.

    Args:
        term: The `DataTerm`.
        weights: List of tensors.
        layers: `capturable_layers` of its model.
    """
    tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
    with tape, calls_recorded(layers, tape.watch) as calls:
        parameters = term.parameters(weights)
    root = term.curvature_root(weights, parameters)
    made = [calls[id(layer)][0] for layer in layers]
    sources = [outputs for _, outputs in made]
    slopes = [
        dense_gradients(
            tape,
            parameters,
            sources,
            output_gradients=root[:, :, column],
            unconnected_gradients="zero",
        )
        for column in range(root.shape[-1])
    ]
    return [
        _record(layer, inputs, tf.stack(columns))
        for layer, (inputs, _), columns in zip(
            layers, made, zip(*slopes, strict=True), strict=True
        )
    ]


def _record(layer, inputs, slopes):
    """A record in which all axes between batch and channels are one of positions."""
    inputs = _read_maps(layer)[0].patches(inputs)
    # For vectors this is a static 1, which makes sums over positions unnecessary.
    positions = slopes.shape[2:-1].num_elements() or -1
    shape = [slopes.shape[0], tf.shape(slopes)[1], positions, slopes.shape[-1]]
    slopes = tf.reshape(slopes, shape)
    inputs = tf.reshape(inputs, [shape[1], positions, inputs.shape[-1]])
    # The compute dtype may be too short for sums over examples.
    dtype = layer.variable_dtype
    inputs, slopes = tf.cast(inputs, dtype), tf.cast(slopes, dtype)
    kernel, bias = kernel_and_bias(layer)
    return LayerRecord(kernel, bias, inputs, slopes)


@contextlib.contextmanager
def calls_recorded(layers, watch=lambda outputs: None):
    """Run the layers, and note what goes in and comes out before the activation.

    Args:
        layers: Capturable layers.
        watch: Called with what comes out, before it is used.

    Yields:
        Dict from a layer's id to a list of pairs, one per call.
    """
    calls: dict[int, list[tuple]] = {id(layer): [] for layer in layers}

    def recording(layer):
        def call(inputs, training=None):
            outputs = tf.convert_to_tensor(_apply_maps(layer, inputs))
            watch(outputs)
            calls[id(layer)].append((inputs, outputs))
            return outputs if layer.activation is None else layer.activation(outputs)

        return call

    for layer in layers:
        # Keras looks `call` up on the object; its own `__setattr__` would track it.
        vars(layer)["call"] = recording(layer)
    try:
        yield calls
    finally:
        for layer in layers:
            del vars(layer)["call"]


def _apply_maps(layer, inputs):
    for linear_map in _read_maps(layer):
        weight = tf.convert_to_tensor(getattr(layer, linear_map.weight))
        inputs = linear_map.apply(inputs, weight)
    return inputs
