"""The centered STN."""

import keras

from bilevel_tf.methods.best_response.two_pass import TwoPass


@keras.saving.register_keras_serializable("bilevel_tf")
class CenteredSTN(TwoPass):
    """STN with a centered response and the modified update, but not linearised.

    The response is r_θ(λ, λ₀) = Θ(λ − λ₀) + w₀ (Eq. 3.1). w₀ is trained at the present
    λ (Eq. 3.9), and Θ on perturbed hyperparameters λ + ε (Eq. 3.10) through the
    nonlinear network. Sections 3.1 and 3.2 of the Δ-STN paper describe it, as a step
    from `STN` to `DeltaSTN`.

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
            hyperparameters, if a layer gets time folded into the batch axis, or if the
            objective is not the validation loss.

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile("sgd", loss="mse", method=bt.methods.CenteredSTN())

    Reference:
        Bae & Grosse, "Delta-STN: Efficient Bilevel Optimization for Neural Networks
        using Structured Response Jacobians", 2020.
    """
