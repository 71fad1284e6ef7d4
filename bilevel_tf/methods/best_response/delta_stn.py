"""The Δ-STN."""

import keras

from bilevel_tf.methods.best_response.two_pass import TwoPass


@keras.saving.register_keras_serializable("bilevel_tf")
class DeltaSTN(TwoPass):
    """Δ-STN, Alg. 1: a centered response, fitted through the linearised network.

    The response is r_θ(λ, λ₀) = Θ(λ − λ₀) + w₀ (Eq. 3.1). w₀ is trained at the present
    λ (Eq. 3.9), and Θ on perturbed hyperparameters λ + ε through the prediction
    y + J_yw Θε (Eq. 3.13). This prediction is linear in the response, so that Θ becomes
    the Jacobian of the best response. An outer step moves λ and the perturbation scale
    σ along the gradient of the validation loss of the perturbed, nonlinear network.

    This is the default method. It also reaches hyperparameters through which training
    cannot be differentiated, such as dropout rates and whole numbers.

    Args:
        shared_pass: Whether one perturbed pass trains both w₀ and Θ, in place of two
            passes. This is cheaper, and the perturbation then regularises w₀ as well.
            Defaults to `False`, as in Alg. 1.
        response_share: Share of each batch, from its start, that trains the response if
            there are two passes; in (0, 1]. Less than 1 is cheaper. Defaults to 1, as
            in Alg. 1.
        response_initializer: Start of the response kernels: "kernel" copies the kernel
            of the layer; "random" draws them from the initializer of that kernel, as in
            the paper. Defaults to "kernel", because a random direction takes many
            epochs to turn into the one that is needed.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        entropy_weight: τ of Eq. 2.7, the weight of the entropy of the perturbation, in
            units of the loss; for a hyperparameter with a prior it is the weight of the
            KL divergence from that prior. Defaults to 1e-3, as in the Δ-STN paper on
            images.
        warmup_epochs: Number of epochs at the start in which λ and σ stay fixed while
            weights and response are trained. Defaults to 0.

    Raises:
        ValueError: If an argument is out of its range, if `response_share` is below 1
            with `shared_pass`, or if `response_initializer` is unknown. At `compile`,
            if the model has no layers that respond, if a tuned penalty is on a layer
            that cannot respond or has a factor per weight, if the optimizer has
            hyperparameters, if the final softmax or sigmoid is not in a hyper-layer, if
            a loop over time without `unroll=True` is above a hyper-layer, if a layer
            gets time folded into the batch axis, or if the objective is not the
            validation loss.

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile("sgd", loss="mse", method=bt.DeltaSTN(warmup_epochs=5))

    Reference:
        Bae & Grosse, "Delta-STN: Efficient Bilevel Optimization for Neural Networks
        using Structured Response Jacobians", 2020, Alg. 1.
    """

    linearized = True
