"""A dense layer with a posterior over its weights."""

import keras

from bilevel_tf.layers.counterparts import VARIATIONAL, counterpart_of
from bilevel_tf.layers.variational.variational_layer import VariationalLayer


@counterpart_of(keras.layers.Dense, VARIATIONAL)
@keras.saving.register_keras_serializable("bilevel_tf")
class VariationalDense(VariationalLayer, keras.layers.Dense):
    """`keras.layers.Dense` with a Gaussian posterior; means and scales are trained.

    Every weight has the posterior q(w) = N(μ, σ²), independent of the others. In
    training the layer draws its weights and adds KL(q ‖ prior) / N to the losses. If
    the loss is the mean negative log likelihood of N examples, training then maximises
    the evidence lower bound, per example. The layer predicts with the means, as the
    Keras layer does, at the same cost; `bt.predictive` averages over draws.

    The weights `kernel` and `bias` are the means μ, in the shapes of the Keras layer;
    `raw_kernel_scale` and `raw_bias_scale` are ρ with σ = exp(ρ), in the same shapes.
    LoRA and quantisation are refused.

    Args:
        *args: Arguments of `keras.layers.Dense` that are given by position.
        units: How many outputs there are. A positive integer.
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
        estimator: How training draws.
            "local": pre-activations in place of weights, from N(x·μ, x²·σ²). It takes
            two products of matrices, as many random numbers as outputs, and has no
            covariance between examples, hence the least variance. If inputs have more
            than one position (a rank above 2), it leaves out that the positions share
            weights.
            "flipout": one draw, with random signs for every example. It takes two
            products and as many random numbers as weights, and is uncorrelated between
            examples.
            "shared": one draw for the batch. It takes one product and as many random
            numbers as weights; its variance does not fall with the size of the batch.
            Defaults to "local", which has the least variance and is the fastest if a
            layer has more weights than the batch has outputs.
        initial_scale: σ at the start, in the unit of the weights; positive. Defaults to
            0.02, which is a fifth to three fifths of what Glorot's initializer gives
            the means of layers that are a hundred to a thousand wide: training can see
            it, and the signal is not drowned. Take less for a trained network.
        seed: Integer seed of the draws. Defaults to `None`, a random one.
        **kwargs: `name`, `trainable` and `dtype` of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., features)`.

    Output shape:
        `(batch, ..., units)`.

    Raises:
        ValueError: If an argument is out of its range; if, at `build`, a hyperparameter
            of a prior does not broadcast to its weight; if LoRA or quantisation is
            asked for.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e4, initial=10.0))
    >>> prior = bt.NormalPrior(hp["precision"], data_size=100)
    >>> layer = bt.VariationalDense(4, activation="relu", prior=prior)
    >>> layer(np.ones((2, 3), "float32"), training=True).shape
    TensorShape([2, 4])

    Reference:
        Graves, "Practical variational inference for neural networks", 2011; Blundell
        et al., "Weight uncertainty in neural networks", 2015; for the estimators see
        `bilevel_tf.layers.variational.estimators`.
    """

    default_estimator = "local"
