"""A one-dimensional separable convolution whose weights respond."""

import keras

from bilevel_tf.layers.counterparts import counterpart_of
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer


@counterpart_of(keras.layers.SeparableConv1D)
@keras.saving.register_keras_serializable("bilevel_tf")
class HyperSeparableConv1D(HyperLayer, keras.layers.SeparableConv1D):
    """`keras.layers.SeparableConv1D` with a best response to the hyperparameters.

    The depthwise kernel and the pointwise kernel respond each by itself, as in two
    layers: every channel between the two, and every output channel, has one number per
    hyperparameter in the factors of Eq. 3.14.

    At δ = 0, and in a model that no best-response method trains, it is
    `keras.layers.SeparableConv1D` exactly. Config and weights are those of
    `keras.layers.SeparableConv1D` too.

    Args:
        filters: How many output channels there are. A positive integer.
        kernel_size: Extent of the kernel in space. An integer.
        depth_multiplier: How many channels each input channel makes before they are
            mixed. Defaults to 1.
        strides: Step of the kernel in space. An integer. Defaults to 1.
        padding: "valid", no padding, or "same", outputs as large as the inputs divided
            by the strides. Defaults to "valid".
        data_format: "channels_last", inputs of shape `(batch, steps, channels)`, or
            "channels_first", `(batch, channels, steps)`. Defaults to `None`, Keras's
            global setting.
        dilation_rate: Distance between the entries of the kernel. An integer. Only one
            of this and `strides` may exceed 1. Defaults to 1.
        activation: Function applied to the outputs, or its name. Defaults to `None`,
            the identity.
        use_bias: Whether a bias is added. Defaults to `True`.
        depthwise_initializer: Initializer of the depthwise kernel. Defaults to
            "glorot_uniform".
        depthwise_regularizer: Penalty on the depthwise kernel, such as
            `bt.L2(hp["decay"])`, whose factor may be a hyperparameter. Defaults to
            `None`.
        depthwise_constraint: Function applied to the depthwise kernel after each
            update. Defaults to `None`.
        pointwise_initializer: Initializer of the pointwise kernel. Defaults to
            "glorot_uniform".
        pointwise_regularizer: Penalty on the pointwise kernel, such as
            `bt.L2(hp["decay"])`, whose factor may be a hyperparameter. Defaults to
            `None`.
        pointwise_constraint: Function applied to the pointwise kernel after each
            update. Defaults to `None`.
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
        `(batch, new_steps, filters)`, or the channels first.

    Raises:
        ValueError: If an argument is out of its range; if LoRA or quantisation is
            enabled when a method attaches a response.
        TypeError: If the inputs are integers.

    Example:

    >>> layer = bt.layers.HyperSeparableConv1D(4, 3)
    >>> layer(np.ones((2, 8, 3), "float32")).shape
    TensorShape([2, 6, 4])

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4 and appendix E.
    """
