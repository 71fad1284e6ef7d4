"""What enters Dense and Conv2D layers, and how the likelihood depends on what leaves.

The Gauss-Newton matrix of such a layer's kernel is a sum, over examples, over pairs of
positions t, u and over the columns of a root of the likelihood's curvature, of
(a_t a_uᵀ) ⊗ (g_t g_uᵀ), with a the layer's inputs (of a convolution, its patches) and
g the derivatives by its outputs before the activation.
"""

import contextlib
import math
import typing

import keras
import tensorflow as tf

from bilevel_tf.layers.hyper.conv2d import HyperConv2D
from bilevel_tf.layers.hyper.dense import HyperDense

_DENSE = keras.layers.Dense, HyperDense
_CONVOLUTIONS = keras.layers.Conv2D, HyperConv2D


class LayerRecord(typing.NamedTuple):
    """One layer in one pass.

    Attributes:
        layer: The layer.
        inputs: a, `[batch, positions, in]`, positions being 1 for a Dense layer on
            vectors.
        slopes: g, `[C, batch, positions, out]`.
    """

    layer: keras.Layer
    inputs: tf.Tensor
    slopes: tf.Tensor


def capturable(layer):
    """Whether this is a layer whose inputs and slopes are enough.

    A subclass might compute something else.
    """
    if type(layer) in _CONVOLUTIONS:
        return layer.groups == 1 and layer.data_format == "channels_last"
    return type(layer) in _DENSE


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
        tape.gradient(
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
    """Everything between batch and channels as one axis of positions."""
    if type(layer) in _CONVOLUTIONS:
        inputs = _patches(layer, inputs)
    # A static 1 for vectors, which makes sums over positions unnecessary.
    positions = slopes.shape[2:-1].num_elements() or -1
    shape = [slopes.shape[0], tf.shape(slopes)[1], positions, slopes.shape[-1]]
    slopes = tf.reshape(slopes, shape)
    inputs = tf.reshape(inputs, [shape[1], positions, inputs.shape[-1]])
    # The compute dtype may be too short for sums over examples.
    dtype = layer.variable_dtype
    return LayerRecord(layer, tf.cast(inputs, dtype), tf.cast(slopes, dtype))


def _patches(layer, inputs):
    """What the kernel is multiplied with at every position, by a kernel of ones.

    In place of `tf.image.extract_patches`, whose derivatives XLA does not have.
    """
    shape = tuple(layer.kernel.shape)[:3]
    size = math.prod(shape)
    unit = tf.reshape(tf.eye(size, dtype=inputs.dtype), [*shape, size])
    return tf.convert_to_tensor(layer.convolution_op(inputs, unit))


@contextlib.contextmanager
def calls_recorded(layers, watch=lambda outputs: None):
    """Run the layers, and note what goes in and comes out before the activation.

    Args:
        layers: Capturable layers.
        watch: Called with what comes out, before it is used.

    Yields:
        Dict from a layer's id to a list of pairs, one per call.
    """
    calls = {id(layer): [] for layer in layers}

    def recording(layer):
        def call(inputs, training=None):
            outputs = tf.convert_to_tensor(_affine(layer, inputs))
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


def _affine(layer, inputs):
    if type(layer) in _CONVOLUTIONS:
        outputs = layer.convolution_op(inputs, layer.kernel)
    else:
        outputs = keras.ops.matmul(inputs, layer.kernel)
    return outputs if layer.bias is None else outputs + layer.bias
