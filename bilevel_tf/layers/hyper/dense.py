"""A dense layer whose weights respond to the hyperparameters."""

import keras

from bilevel_tf.layers.counterparts import counterpart_of
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer


@counterpart_of(keras.layers.Dense)
@keras.saving.register_keras_serializable("bilevel_tf")
class HyperDense(HyperLayer, keras.layers.Dense):
    """`keras.layers.Dense` with a best response to the hyperparameters.

    In a `BilevelModel` trained by a best-response method the layer computes, for
    example i with perturbation δ_i of the unconstrained hyperparameters,

        activation(x·W + b + (δ_i U) ⊙ (x·R) + (δ_i V) ⊙ b_R)

    (Eq. 3.14), with the kernel W, the bias b, the response's direction R, shaped as W,
    and b_R, shaped as b, and its factors U and V, `[h, units]`. The product with x is
    as cheap as that of one more layer: no example's weights are ever formed.

    At δ = 0, and in a model that no best-response method trains, it is
    `keras.layers.Dense` exactly. Config and weights are those of `keras.layers.Dense`
    too.

    Args:
        units: How many outputs there are. A positive integer.
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
        lora_rank, lora_alpha, quantization_config: As in Keras, where the installed
            version has them. A layer that uses them cannot respond.
        **kwargs: `name`, `trainable` and `dtype` of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., features)`, floating point.

    Output shape:
        `(batch, ..., units)`.

    Raises:
        ValueError: If an argument is out of its range; if LoRA or quantisation is
            enabled when a method attaches a response.
        TypeError: If the inputs are integers.

    Example:

    >>> hp = bt.HyperparameterSpace(decay=bt.LogUniform(1e-5, 1.0, initial=1e-3))
    >>> layer = bt.HyperDense(4, "relu", kernel_regularizer=bt.L2(hp["decay"]))
    >>> layer(np.ones((2, 3), "float32")).shape
    TensorShape([2, 4])

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4.
    """
