"""A dense layer with a posterior over its weights."""

import keras

from bilevel_tf.layers.counterparts import VARIATIONAL, counterpart_of
from bilevel_tf.layers.variational.variational_layer import VariationalLayer


@counterpart_of(keras.layers.Dense, VARIATIONAL)
@keras.saving.register_keras_serializable("bilevel_tf")
class VariationalDense(VariationalLayer, keras.layers.Dense):
    """`keras.layers.Dense` whose weights are normals, q(w) = N(μ, σ²), trained both.

    While it is trained, the layer draws its weights and adds KL(q ‖ prior) / N to the
    losses; with a loss that is the mean negative log likelihood of N examples, training
    then maximises the evidence lower bound (per example). It predicts with the means,
    as the Keras layer does, at the same cost; `bt.predictive` averages over draws.

    The weights `kernel` and `bias` are the means μ, in the shapes of the Keras layer;
    `raw_kernel_scale` and `raw_bias_scale` are ρ with σ = exp(ρ), shaped alike.
    LoRA and quantisation are not supported.

    Args:
        units: As in Keras, and so are all arguments of `keras.layers.Dense`.
            Constraints and regularizers act on the means.
        prior: A `WeightPrior` such as `NormalPrior(hp["precision"], data_size=N)`. A
            mixture's divergence has no closed form and is estimated at one draw.
        bias_prior: That of the bias. Defaults to `prior`.
        estimator: How training draws.
            "local": pre-activations in place of weights, from N(x·μ, x²·σ²). Two
            products of matrices, as many random numbers as outputs; no covariance
            between examples, hence the least variance. With more than one position per
            example (inputs of rank above 2) it leaves out that these share weights.
            "flipout": one draw, with random signs for every example. Two products,
            as many random numbers as weights; uncorrelated between examples.
            "shared": one draw for the batch. One product, the same random numbers; its
            variance does not fall with the size of the batch.
            Defaults to "local", which has the least variance and is the fastest where
            a layer has more weights than the batch has outputs.
        initial_scale: σ at the start, in the unit of the weights. Defaults to 0.02,
            at widths of a hundred to a thousand a fifth to three fifths of what
            Glorot's initialiser gives the means: training can see it, and starts from
            a signal that is not drowned. For a trained network take less.
        seed: As in Keras, of the draws.
        **kwargs: Of `keras.layers.Dense`.

    Raises:
        ValueError: If an argument is out of its range, or, when it is built, a
            hyperparameter of a prior does not broadcast to its weight.

    Example:

    >>> hp = bt.HyperparameterSpace(precision=bt.LogUniform(1e-2, 1e4, initial=10.0))
    >>> prior = bt.NormalPrior(hp["precision"], data_size=len(x_train))
    >>> x = bt.VariationalDense(300, activation="relu", prior=prior)(x)

    Reference:
        Graves, "Practical variational inference for neural networks", 2011; Blundell
        et al., "Weight uncertainty in neural networks", 2015; estimators: see
        `bilevel_tf.layers.variational.estimators`.
    """

    default_estimator = "local"
