"""An embedding whose vectors respond to the hyperparameters."""

import keras

from bilevel_tf.layers.counterparts import counterpart_of
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer


@counterpart_of(keras.layers.Embedding)
@keras.saving.register_keras_serializable("bilevel_tf")
class HyperEmbedding(HyperLayer, keras.layers.Embedding):
    """`keras.layers.Embedding` with a best response to the hyperparameters.

    Example i with perturbation δ_i gets the vectors e + (δ_i U) ⊙ r in place of e, with
    a direction r for every index and one number per hyperparameter and output in U,
    `[h, output_dim]` (Eq. 3.14).

    At δ = 0, and in a model that no best-response method trains, it is
    `keras.layers.Embedding` exactly. Config and weights are those of
    `keras.layers.Embedding` too.

    Args:
        input_dim: How many indices there are. A positive integer.
        output_dim: Length of each vector. A positive integer.
        embeddings_initializer: Initializer of the embeddings. Defaults to "uniform".
        embeddings_regularizer: Penalty on the embeddings, such as `bt.L2(hp["decay"])`,
            whose factor may be a hyperparameter. Defaults to `None`.
        embeddings_constraint: Function applied to the embeddings after each update.
            Defaults to `None`.
        mask_zero: Whether index 0 is padding, which later layers are told to mask.
            Defaults to `False`.
        weights: The embeddings to start with, `[input_dim, output_dim]`. Defaults to
            `None`, the initializer's.
        lora_rank, lora_alpha, quantization_config: As in Keras, where the installed
            version has them. A layer that uses them cannot respond.
        **kwargs: `name`, `trainable` and `dtype` of `keras.layers.Layer`.

    Input shape:
        `(batch, ...)`, integers from 0 to `input_dim` - 1.

    Output shape:
        `(batch, ..., output_dim)`.

    Raises:
        ValueError: If an argument is out of its range; if LoRA or quantisation is
            enabled when a method attaches a response.

    Example:

    >>> layer = bt.layers.HyperEmbedding(10, 4)
    >>> layer(np.array([[1, 2, 9]])).shape
    TensorShape([1, 3, 4])

    Reference:
        Bae & Grosse, "Delta-STN", 2020, section 3.4.
    """
