"""Self-tuning networks without linearisation."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.methods.best_response.best_response import BestResponse
from bilevel_tf.network.network import Network


@keras.saving.register_keras_serializable("bilevel_tf")
class STN(BestResponse):
    """Self-Tuning Network, Alg. 2: an uncentered response, trained under perturbation.

    The response is r_φ(λ) = Φλ + φ₀ (Eq. 2.6). One perturbed pass trains Φ and φ₀
    together. The model predicts with the weights r_φ(λ) at the present λ, so that the
    stored kernels, φ₀, are not those that it uses; `to_keras` and `export` fold them.
    Response kernels start at random, as published.

    Args:
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
        ValueError: If an argument is out of its range. At `compile`, if the model has
            no layers that respond, if a tuned penalty is on a layer that cannot respond
            or has a factor per weight, if the optimizer has hyperparameters, if a layer
            gets time folded into the batch axis, or if the objective is not the
            validation loss.

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile("sgd", loss="mse", method=bt.STN())

    Reference:
        MacKay et al., "Self-Tuning Networks: Bilevel optimization of hyperparameters
        using structured best-response functions", 2019. Numbers of equations and
        algorithms are those of Bae & Grosse, "Delta-STN", 2020, which restates it.
    """

    centered = False

    def response_arguments(self) -> dict[str, Any]:
        """Return the start of the response kernels, which is random as published."""
        return {"initializer": "random"}

    def inner_step(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """φ ← φ − α₁ ∇L_T(λ + ε, r_φ(λ + ε)); arguments as in `Method`."""
        return self.update_jointly(network, x, y, sample_weight)
