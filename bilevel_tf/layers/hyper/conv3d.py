"""A three-dimensional convolution whose weights respond to the hyperparameters."""

import keras

from bilevel_tf.layers.counterparts import counterpart_of
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer


@counterpart_of(keras.layers.Conv3D)
@keras.saving.register_keras_serializable("bilevel_tf")
class HyperConv3D(HyperLayer, keras.layers.Conv3D):
    """`keras.layers.Conv3D` with a best response to the hyperparameters.

    In a `BilevelModel` trained by a best-response method the layer computes, for
    example i with perturbation δ_i of the unconstrained hyperparameters,

        activation(x∗W + b + (δ_i U) ⊙ (x∗R) + (δ_i V) ⊙ b_R)

    (Eq. 3.14 with appendix E), where ∗ is the convolution, R is shaped as the kernel W
    and b_R as the bias b, and the factors U and V, `[h, filters]`, have one number per
    output channel, the same at all positions.

    At δ = 0, and in a model that no best-response method trains, it is
    `keras.layers.Conv3D` exactly. Config and weights are those of `keras.layers.Conv3D`
    too.

    Args:
        filters: How many output channels there are. A positive integer.
        kernel_size: Extent of the kernel in space. An integer, or three of them.
        strides: Step of the kernel in space. An integer, or three of them. Defaults to
            1.
        padding: "valid", no padding, or "same", outputs as large as the inputs divided
            by the strides. Defaults to "valid".
        data_format: "channels_last", inputs of shape `(batch, depth, rows, columns,
            channels)`, or "channels_first", `(batch, channels, depth, rows, columns)`.
            Defaults to `None`, Keras's global setting.
        dilation_rate: Distance between the entries of the kernel. An integer, or three
            of them. Only one of this and `strides` may exceed 1. Defaults to 1.
        groups: How many groups of channels are convolved separately. Defaults to 1.
        activation: Function applied to the outputs, or its name. Defaults to `None`,
            the identity.
        use_bias: Whether a bias is added. Defaults to `True`.
        kernel_initializer: Initializer of the kernel. Defaults to "glorot_uniform".
        kernel_regularizer: Penalty on the kernel, such as `bt.L2(hp["decay"])`, whose
            factor may be a hyperparameter. Defaults to `None`.
        kernel_constraint: Function applied to the kernel after each update. Defaults to
            `None`.
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
        `(batch, new_depth, new_rows, new_columns, filters)`, or the channels first.

    Raises:
        ValueError: If an argument is out of its range; if LoRA or quantisation is
            enabled when a method attaches a response.
        TypeError: If the inputs are integers.

    Example:

    >>> layer = bt.layers.HyperConv3D(4, 3)
    >>> layer(np.ones((2, 4, 4, 4, 3), "float32")).shape
    TensorShape([2, 2, 2, 2, 4])

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4 and appendix E.
    """
