"""How the layers of Keras apply their weights: the registry.

Each function returns the maps in the order in which the layer applies them. It reads
arguments of the layer, and holds on to these, not to the layer.
"""

import math

import tensorflow as tf
from keras import layers, ops

from bilevel_tf.layers.linear_map import LinearMap, Offset, register


@register(layers.Dense)
def _describe_dense(layer):
    kernel = LinearMap("kernel", _multiply, patches=lambda inputs: inputs)
    return [kernel, *([Offset("bias")] if layer.use_bias else [])]


def _multiply(inputs, kernel):
    if inputs.shape.rank == 2 and not isinstance(inputs, tf.SparseTensor):
        return tf.matmul(inputs, kernel)
    return ops.matmul(inputs, kernel)


@register(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def _describe_convolution(layer):
    channels = _channel_axis(layer)
    groups, kernel_size = layer.groups, tuple(layer.kernel_size)
    arguments = _spatial_arguments(layer)
    padded_axis = 1 if layer.data_format == "channels_last" else 2
    causal = layer.padding == "causal"
    reach = layer.dilation_rate[0] * (kernel_size[0] - 1)
    if causal:
        arguments["padding"] = "valid"

    def convolve(inputs, kernel):
        if causal:
            before = [[0, 0]] * 3
            before[padded_axis] = [reach, 0]
            inputs = ops.pad(inputs, before)
        return ops.conv(inputs, kernel, **arguments)

    def patches(inputs):
        # By a kernel of ones: XLA has no derivatives of `tf.image.extract_patches`.
        shape = (*kernel_size, inputs.shape[-1])
        size = math.prod(shape)
        ones = tf.reshape(tf.eye(size, dtype=inputs.dtype), [*shape, size])
        return tf.convert_to_tensor(convolve(inputs, ones))

    kernel = LinearMap(
        "kernel",
        convolve,
        output_axes=(channels,),
        patches=patches if groups == 1 and channels == -1 else None,
        vectorizes=False,
    )
    return [kernel, *_channel_bias(layer)]


@register(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def _describe_transposed_convolution(layer):
    arguments = _spatial_arguments(layer)
    arguments["output_padding"] = layer.output_padding
    kernel = LinearMap(
        "kernel",
        lambda inputs, kernel: ops.conv_transpose(inputs, kernel, **arguments),
        unit_axes=(-2,),
        output_axes=(_channel_axis(layer),),
        vectorizes=False,
    )
    return [kernel, *_channel_bias(layer)]


@register(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def _describe_depthwise_convolution(layer):
    return [_depthwise_map(layer, "kernel"), *_channel_bias(layer)]


@register(layers.SeparableConv1D, layers.SeparableConv2D)
def _describe_separable_convolution(layer):
    pointwise = LinearMap(
        "pointwise_kernel",
        _mix_channels if layer.data_format == "channels_last" else _mix_first_channels,
        output_axes=(_channel_axis(layer),),
        initializer="pointwise_initializer",
        vectorizes=False,
    )
    depthwise = _depthwise_map(layer, "depthwise_kernel")
    return [depthwise, pointwise, *_channel_bias(layer)]


def _depthwise_map(layer, weight):
    arguments = _spatial_arguments(layer)
    return LinearMap(
        weight,
        lambda inputs, kernel: ops.depthwise_conv(inputs, kernel, **arguments),
        unit_axes=(-2, -1),
        output_axes=(_channel_axis(layer),),
        initializer="depthwise_initializer",
        vectorizes=False,
    )


def _mix_channels(inputs, kernel):
    return ops.conv(inputs, kernel, padding="valid", data_format="channels_last")


def _mix_first_channels(inputs, kernel):
    # The CPU has no convolution with channels first.
    return tf.einsum("bi...,io->bo...", inputs, tf.reshape(kernel, kernel.shape[-2:]))


def _channel_axis(layer):
    return -1 if layer.data_format == "channels_last" else 1


def _spatial_arguments(layer):
    return {
        "strides": tuple(layer.strides),
        "padding": layer.padding,
        "data_format": layer.data_format,
        "dilation_rate": tuple(layer.dilation_rate),
    }


def _channel_bias(layer):
    if not layer.use_bias:
        return []
    if layer.data_format == "channels_last":
        return [Offset("bias")]
    return [Offset("bias", _add_along_first_channels, output_axes=(1,))]


def _add_along_first_channels(inputs, bias):
    return tf.nn.bias_add(inputs, bias, "NC...")


@register(layers.Embedding)
def _describe_embedding(layer):
    dtype = layer.compute_dtype

    def look_up(inputs, embeddings):
        if inputs.dtype not in ("int32", "int64"):
            inputs = ops.cast(inputs, "int32")
        return ops.cast(ops.take(embeddings, inputs, axis=0), dtype)

    return [
        LinearMap(
            "embeddings",
            look_up,
            initializer="embeddings_initializer",
            takes_indices=True,
        )
    ]


@register(layers.EinsumDense)
def _describe_einsum(layer):
    equation = layer.equation
    inputs, weight, outputs = equation.replace("->", ",").replace(" ", "").split(",")
    left = inputs.startswith("...")
    inputs, outputs = inputs.strip("."), outputs.strip(".")
    if not left and (outputs[:1] != inputs[:1] or inputs[:1] in weight):
        return None

    def axis_in_outputs(letter):
        return outputs.index(letter) - (len(outputs) if left else 0)

    units = [axis for axis, letter in enumerate(weight) if letter in outputs]
    kernel = LinearMap(
        "kernel",
        lambda inputs, kernel: ops.einsum(equation, inputs, kernel),
        unit_axes=tuple(units),
        output_axes=tuple(axis_in_outputs(weight[axis]) for axis in units),
    )
    if layer.bias_axes is None:
        return [kernel]
    # The bias has the axes of the outputs from the first one that it varies along.
    letters = sorted(layer.bias_axes, key=outputs.index)
    if not left and letters[0] == inputs[0]:
        return None
    first = outputs.index(letters[0])
    bias = Offset(
        "bias",
        _add_broadcast,
        unit_axes=tuple(outputs.index(letter) - first for letter in letters),
        output_axes=tuple(axis_in_outputs(letter) for letter in letters),
    )
    return [kernel, bias]


def _add_broadcast(inputs, bias):
    return ops.add(inputs, bias)
