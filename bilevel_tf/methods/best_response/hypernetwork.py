"""The full linear hypernetwork."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count
from bilevel_tf.layers.response.full import FullResponse
from bilevel_tf.methods.best_response.best_response import BestResponse
from bilevel_tf.network.network import Network


@keras.saving.register_keras_serializable("bilevel_tf")
class Hypernetwork(BestResponse):
    """A full linear hypernetwork w_φ(λ) = Φλ + φ₀, for small models.

    Φ has a column for every hyperparameter and a row for every weight that responds.
    One perturbed pass trains Φ and φ₀ together. Each example has its own perturbation,
    whereas the paper draws one per batch. The model predicts with the weights w_φ(λ) at
    the present λ; `to_keras` and `export` fold them.

    Args:
        max_weights: Largest number of entries of Φ that is allowed: h, the size of the
            space, times the number of weights that respond. Defaults to 10 million,
            which takes 40 MB in float32 and as much again for each slot of the
            optimizer.
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
            or has a factor per weight, if the optimizer has hyperparameters, if Φ would
            have more than `max_weights` entries, if a layer gets time folded into the
            batch axis, or if the objective is not the validation loss.

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile("sgd", loss="mse", method=bt.methods.Hypernetwork())

    Reference:
        Lorraine & Duvenaud, "Stochastic hyperparameter optimization through
        hypernetworks", 2018.
    """

    response_class = FullResponse
    centered = False

    def __init__(
        self,
        max_weights: int = 10_000_000,
        *,
        train_steps: int = 5,
        valid_steps: int = 1,
        entropy_weight: float = 1e-3,
        warmup_epochs: int = 0,
        **kwargs: Any,
    ):
        super().__init__(
            train_steps, valid_steps, entropy_weight, warmup_epochs, **kwargs
        )
        self.max_weights = check_count(max_weights, "max_weights", 1)

    def check(self, network: Network) -> None:
        """Check also that Φ is not too large.

        Raises:
            ValueError: If Φ would have more than `max_weights` entries, or the weights
                cannot respond.
        """
        weights = sum(
            w.shape.num_elements()
            for layer in network.responding_layers
            for w in map(keras.ops.convert_to_tensor, layer.responding_weights())
        )
        size = weights * network.hyperparameters.size
        if size > self.max_weights:
            raise ValueError(
                f"A full hypernetwork for this model has {size:,} weights ({weights:,} "
                f"weights × {network.hyperparameters.size} hyperparameters), more than "
                "`max_weights`. Use bilevel_tf.DeltaSTN(), whose response is "
                "structured, or raise `max_weights`. "
                f"Received: max_weights={self.max_weights:,}"
            )
        super().check(network)

    def inner_step(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """φ ← φ − α₁ ∇L_T(λ + ε, w_φ(λ + ε)); arguments as in `Method`."""
        return self.update_jointly(network, x, y, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this method again."""
        return {**super().get_config(), "max_weights": self.max_weights}
