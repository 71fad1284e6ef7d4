"""The full linear hypernetwork."""

import keras

from bilevel_tf._arguments import count
from bilevel_tf.layers.response.full import FullResponse
from bilevel_tf.methods.best_response.best_response import BestResponse


@keras.saving.register_keras_serializable("bilevel_tf")
class Hypernetwork(BestResponse):
    """A full linear hypernetwork w_φ(λ) = Φλ + φ₀, for small models.

    One perturbed pass trains Φ and φ₀. Each example has its own perturbation, where
    the paper draws one per batch.

    Args:
        max_weights: Largest number of entries of Φ allowed: h times the number of
            weights that respond. Defaults to 10 million (40 MB in float32, and as
            much again for each slot of the optimizer).
        **kwargs: See `BestResponse`. `entropy_weight` defaults to 1e-3.

    Reference:
        Lorraine & Duvenaud, "Stochastic hyperparameter optimization through
        hypernetworks", 2018.
    """

    response_class = FullResponse
    centered = False

    def __init__(self, max_weights=10_000_000, **kwargs):
        super().__init__(**kwargs)
        self.max_weights = count(max_weights, "max_weights", 1)

    def check(self, network):
        """Check also that Φ is not too large.

        Raises:
            ValueError: If Φ would have more than `max_weights` entries.
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
                f"max_weights={self.max_weights:,}. Use "
                "bilevel_tf.DeltaSTN(), whose response is structured, or raise "
                "`max_weights`."
            )
        super().check(network)

    def inner_step(self, network, x, y, sample_weight):
        """φ ← φ − α₁ ∇L_T(λ + ε, w_φ(λ + ε))."""
        return self.update_jointly(network, x, y, sample_weight)

    def get_config(self):
        return {**super().get_config(), "max_weights": self.max_weights}
