"""A two-dimensional convolution whose weights respond to the hyperparameters."""

import keras

from bilevel_tf.layers.hyper.hyper_layer import HyperLayer


@keras.saving.register_keras_serializable("bilevel_tf")
class HyperConv2D(HyperLayer, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a best response to the hyperparameters.

    As `HyperDense`, with x·K read as a convolution and the factors δU and δV
    broadcast over space (appendix E of the Δ-STN paper). Arguments, config and
    weights are those of `keras.layers.Conv2D`, strides, padding, dilation, groups and
    data format included; LoRA is not supported.

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4 and appendix E.
    """

    @property
    def channel_axis(self):
        """Axis of the filters in the outputs."""
        return -1 if self.data_format == "channels_last" else 1

    def apply_kernel(self, inputs, kernel):
        """The convolution of the inputs with `kernel`."""
        return self.convolution_op(inputs, kernel)
