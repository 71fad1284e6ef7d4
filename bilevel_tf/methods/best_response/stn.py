"""Self-tuning networks without linearisation."""

import keras

from bilevel_tf.methods.best_response.best_response import BestResponse


@keras.saving.register_keras_serializable("bilevel_tf")
class STN(BestResponse):
    """Self-Tuning Network, Alg. 2: an uncentered response, trained under perturbation.

    r_φ(λ) = Φλ + φ₀ (Eq. 2.6). One perturbed pass trains weights and response. The
    model predicts at the response's weights at the current λ, so its stored kernels
    are not those that it uses; `to_keras` and `export` fold them.

    Args: see `BestResponse`.

    Reference:
        MacKay et al., "Self-Tuning Networks", 2019.
    """

    centered = False

    def response_arguments(self):
        """As published: the response kernel starts at random."""
        return {"initializer": "random"}

    def inner_step(self, network, x, y, sample_weight):
        """φ ← φ − α₁ ∇L_T(λ + ε, r_φ(λ + ε))."""
        return self.update_jointly(network, x, y, sample_weight)
