"""A two-dimensional convolution with a posterior over its weights."""

import keras

from bilevel_tf.layers.counterparts import VARIATIONAL, counterpart_of
from bilevel_tf.layers.variational.variational_layer import VariationalLayer


@counterpart_of(keras.layers.Conv2D, VARIATIONAL)
@keras.saving.register_keras_serializable("bilevel_tf")
class VariationalConv2D(VariationalLayer, keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose weights are normals, q(w) = N(μ, σ²), trained both.

    As `VariationalDense`, with x·w read as a convolution.

    Args:
        filters: As in Keras, and so are all arguments of `keras.layers.Conv2D`.
        prior: See `VariationalDense`.
        bias_prior: See `VariationalDense`.
        estimator: How training draws; see `VariationalDense`. "local" draws every
            position's output on its own, as if each had a kernel of its own: the
            variances are right, but positions of an example are not correlated as by
            the kernel that they share, so that the bound it estimates is another.
            "flipout" and "shared" draw kernels. Defaults to "flipout": two
            convolutions as well, with far fewer random numbers than "local" needs.
        initial_scale: See `VariationalDense`.
        seed: As in Keras, of the draws.
        **kwargs: Of `keras.layers.Conv2D`.

    Raises:
        ValueError: As `VariationalDense`.

    Example:

    >>> prior = bt.NormalPrior(hp["precision"], data_size=len(x_train))
    >>> x = bt.layers.VariationalConv2D(32, 3, padding="same", prior=prior)(x)

    Reference:
        Wen et al., "Flipout", 2018; see also `VariationalDense`.
    """

    default_estimator = "flipout"
