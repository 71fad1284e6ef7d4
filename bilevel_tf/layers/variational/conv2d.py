"""A two-dimensional convolution with a posterior over its weights."""

import keras

from bilevel_tf.layers.counterparts import VARIATIONAL, counterpart_of
from bilevel_tf.layers.variational.variational_layer import VariationalLayer


@counterpart_of(keras.layers.Conv2D, VARIATIONAL)
@keras.saving.register_keras_serializable("bilevel_tf")
class VariationalConv2D(VariationalLayer, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a Gaussian posterior; means and scales are trained.

    It is to `keras.layers.Conv2D` what `VariationalDense` is to `keras.layers.Dense`:
    every weight has the posterior q(w) = N(μ, σ²), training draws the weights and adds
    KL(q ‖ prior) / N to the losses, and the layer predicts with the means.

    Args:
        *args: Arguments of `keras.layers.Conv2D` that are given by position.
        filters: How many output channels there are. A positive integer.
        kernel_size: Extent of the kernel in space. An integer, or two of them.
        strides: Step of the kernel in space. An integer, or two of them. Defaults to 1.
        padding: "valid", no padding, or "same", outputs as large as the inputs divided
            by the strides. Defaults to "valid".
        data_format: "channels_last", inputs of shape `(batch, rows, columns,
            channels)`, or "channels_first", `(batch, channels, rows, columns)`.
            Defaults to `None`, Keras's global setting.
        dilation_rate: Distance between the entries of the kernel. An integer, or two of
            them. Only one of this and `strides` may exceed 1. Defaults to 1.
        groups: How many groups of channels are convolved separately. Defaults to 1.
        activation: Function applied to the outputs, or its name. Defaults to `None`,
            the identity.
        use_bias: Whether a bias is added. Defaults to `True`.
        kernel_initializer: Initializer of the kernel's mean. Defaults to
            "glorot_uniform".
        bias_initializer: Initializer of the bias's mean. Defaults to "zeros".
        kernel_regularizer: Penalty on the kernel's mean. Defaults to `None`.
        bias_regularizer: Penalty on the bias's mean. Defaults to `None`.
        activity_regularizer: Penalty on the outputs. Defaults to `None`.
        kernel_constraint: Function applied to the kernel's mean after each update.
            Defaults to `None`.
        bias_constraint: The same of the bias. Defaults to `None`.
        prior: A `WeightPrior` such as `NormalPrior(hp["precision"], data_size=N)`. The
            divergence from a mixture has no closed form and is estimated at one draw.
        bias_prior: The prior of the bias. Defaults to `prior`.
        estimator: How training draws; see `VariationalDense` for all three. "local"
            draws every position's output by itself, as if each position had a kernel of
            its own: the variances are right, but the covariances between the positions
            of an example are left out, so that it estimates another bound. "flipout"
            and "shared" draw kernels. Defaults to "flipout", which takes two
            convolutions, as "local" does, but far fewer random numbers.
        initial_scale: σ at the start, in the unit of the weights; positive. Defaults to
            0.02; see `VariationalDense`.
        seed: Integer seed of the draws. Defaults to `None`, a random one.
        **kwargs: `name`, `trainable` and `dtype` of `keras.layers.Layer`.

    Input shape:
        As `data_format` says.

    Output shape:
        `(batch, new_rows, new_columns, filters)`, or the channels first.

    Raises:
        ValueError: If an argument is out of its range; if, at `build`, a hyperparameter
            of a prior does not broadcast to its weight; if LoRA or quantisation is
            asked for.

    Example:

    >>> prior = bt.NormalPrior(2.0, data_size=100)
    >>> layer = bt.layers.VariationalConv2D(4, 3, padding="same", prior=prior)
    >>> layer(np.ones((2, 8, 8, 3), "float32"), training=True).shape
    TensorShape([2, 8, 8, 4])

    Reference:
        Wen et al., "Flipout", 2018; see also `VariationalDense`.
    """

    default_estimator = "flipout"
