"""A two-dimensional depthwise convolution whose weights respond."""

import keras

from bilevel_tf.layers.counterparts import counterpart_of
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer


@counterpart_of(keras.layers.DepthwiseConv2D)
@keras.saving.register_keras_serializable("bilevel_tf")
class HyperDepthwiseConv2D(HyperLayer, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a best response to the hyperparameters.

    Every output channel, which sees one input channel alone, has one number per
    hyperparameter in the factors of Eq. 3.14, the same at all positions: U is `[h,
    channels, depth_multiplier]` for the kernel, V is `[h, channels * depth_multiplier]`
    for the bias.

    At δ = 0, and in a model that no best-response method trains, it is
    `keras.layers.DepthwiseConv2D` exactly. Config and weights are those of
    `keras.layers.DepthwiseConv2D` too.

    Args:
        kernel_size: Extent of the kernel in space. An integer, or two of them.
        depth_multiplier: How many output channels each input channel makes. Defaults to
            1.
        strides: Step of the kernel in space. An integer, or two of them. Defaults to 1.
        padding: "valid", no padding, or "same", outputs as large as the inputs divided
            by the strides. Defaults to "valid".
        data_format: "channels_last", inputs of shape `(batch, rows, columns,
            channels)`, or "channels_first", `(batch, channels, rows, columns)`.
            Defaults to `None`, Keras's global setting.
        dilation_rate: Distance between the entries of the kernel. An integer, or two of
            them. Only one of this and `strides` may exceed 1. Defaults to 1.
        activation: Function applied to the outputs, or its name. Defaults to `None`,
            the identity.
        use_bias: Whether a bias is added. Defaults to `True`.
        depthwise_initializer: Initializer of the kernel. Defaults to "glorot_uniform".
        depthwise_regularizer: Penalty on the kernel, such as `bt.L2(hp["decay"])`,
            whose factor may be a hyperparameter. Defaults to `None`.
        depthwise_constraint: Function applied to the kernel after each update. Defaults
            to `None`.
        bias_initializer: Initializer of the bias. Defaults to "zeros".
        bias_regularizer: Penalty on the bias, such as `bt.L2(hp["decay"])`, whose
            factor may be a hyperparameter. Defaults to `None`.
        bias_constraint: Function applied to the bias after each update. Defaults to
            `None`.
        activity_regularizer: Penalty on the outputs. Defaults to `None`.
        **kwargs: `name`, `trainable` and `dtype` of `keras.layers.Layer`.

    Input shape:
        As `data_format` says, floating point.

    Output shape:
        `(batch, new_rows, new_columns, channels * depth_multiplier)`, or the channels
        first.

    Raises:
        ValueError: If an argument is out of its range; if LoRA or quantisation is
            enabled when a method attaches a response.
        TypeError: If the inputs are integers.

    Example:

    >>> layer = bt.layers.HyperDepthwiseConv2D(3, depth_multiplier=2)
    >>> layer(np.ones((2, 8, 8, 3), "float32")).shape
    TensorShape([2, 6, 6, 6])

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4 and appendix E.
    """
