"""The centered STN."""

import keras

from bilevel_tf.methods.best_response.two_pass import TwoPass


@keras.saving.register_keras_serializable("bilevel_tf")
class CenteredSTN(TwoPass):
    """STN with a centered response and the modified update: sections 3.1 and 3.2.

    r_θ(λ, λ₀) = Θ(λ − λ₀) + w₀ (Eq. 3.1); w₀ is trained at λ (Eq. 3.9) and Θ under
    perturbation (Eq. 3.10), through the nonlinear network.

    Args: see `TwoPass`.

    Reference:
        Bae & Grosse, "Delta-STN", 2020.
    """
