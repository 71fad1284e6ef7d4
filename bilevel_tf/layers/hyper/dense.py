"""A dense layer whose weights respond to the hyperparameters."""

import keras
import tensorflow as tf

from bilevel_tf.layers.hyper.hyper_layer import HyperLayer


@keras.saving.register_keras_serializable("bilevel_tf")
class HyperDense(HyperLayer, keras.layers.Dense):
    """`keras.layers.Dense` with a best response to the hyperparameters.

    In a `BilevelModel` trained by a best-response method the layer computes, for
    example i with perturbation δ_i,

        activation(x·kernel + bias + (δU) ⊙ (x·response_kernel) + (δV) ⊙ response_bias)

    (Eq. 3.14). At δ = 0, and outside such a model, it is the Keras layer. Arguments,
    config and weights are those of `keras.layers.Dense`; LoRA and quantisation are
    not supported.

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4.
    """

    channel_axis = -1

    def call(self, inputs, training=None):
        return HyperLayer.call(self, inputs)

    def apply_kernel(self, inputs, kernel):
        """x·kernel."""
        if inputs.shape.rank == 2 and not isinstance(inputs, tf.SparseTensor):
            return tf.matmul(inputs, kernel)
        return keras.ops.matmul(inputs, kernel)
