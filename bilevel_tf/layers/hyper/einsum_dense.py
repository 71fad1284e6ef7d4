"""A layer of any linear map whose weights respond to the hyperparameters."""

from typing import Any

import keras

from bilevel_tf.layers.counterparts import counterpart_of
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.linear_map import inherited_maps


@counterpart_of(keras.layers.EinsumDense)
@keras.saving.register_keras_serializable("bilevel_tf")
class HyperEinsumDense(HyperLayer, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` with a best response to the hyperparameters.

    The units are all combinations of the kernel's axes that are axes of the outputs as
    well. Each has one number per hyperparameter in U, `[h, *units]`, of Eq. 3.14; so
    has every entry of the bias.

    At δ = 0, and in a model that no best-response method trains, it is
    `keras.layers.EinsumDense` exactly. Config and weights are those of
    `keras.layers.EinsumDense` too.

    Args:
        equation: The map, such as "abc,cd->abd": axes of the inputs, of the kernel, and
            of the outputs. The first axis of inputs and outputs is the batch, or is in
            a leading ellipsis.
        output_shape: Sizes of the outputs' axes without the batch and without what an
            ellipsis stands for; `None` for those that the inputs have. An integer
            stands for one size.
        activation: Function applied to the outputs, or its name. Defaults to `None`,
            the identity.
        bias_axes: The axes of the outputs along which a bias is added, such as "d".
            Defaults to `None`, no bias.
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
        *args: `activation` and `bias_axes`, if given by position.
        **kwargs: `name`, `trainable` and `dtype` of `keras.layers.Layer`.

    Input shape:
        As `equation` says, floating point.

    Output shape:
        As `equation` says.

    Raises:
        ValueError: If the batch is not the first axis of inputs and outputs, or is an
            axis of the kernel or the bias; if an argument is out of its range; if LoRA
            or quantisation is enabled when a method attaches a response.
        TypeError: If the inputs are integers.

    Example:

    >>> equation = "abc,cde->abde"
    >>> layer = bt.layers.HyperEinsumDense(equation, (None, 2, 4), bias_axes="de")
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 2, 4])

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4.
    """

    def __init__(
        self, equation: str, output_shape: int | tuple, *args: Any, **kwargs: Any
    ):
        super().__init__(equation, output_shape, *args, **kwargs)
        if inherited_maps(self) is None:
            raise ValueError(
                "`equation` must have the batch as the first axis of the inputs and of "
                "the outputs, and as no axis of the kernel or the bias, so that every "
                "example can have weights of its own. Use keras.layers.EinsumDense for "
                f"others. Received: equation={equation!r}, bias_axes={self.bias_axes!r}"
            )
