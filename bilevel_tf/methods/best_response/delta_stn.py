"""The Δ-STN."""

import keras

from bilevel_tf.methods.best_response.two_pass import TwoPass


@keras.saving.register_keras_serializable("bilevel_tf")
class DeltaSTN(TwoPass):
    """Δ-STN, Alg. 1: a centered response, fitted through the linearised network.

    The prediction that Θ is trained through is y + J_yw Θε (Eq. 3.13), linear in the
    response, so that what is fitted is the Jacobian of the best response.

    Args: see `TwoPass` and `BestResponse`.

    Example:

    >>> model.compile(optimizer="sgd", method=DeltaSTN(warmup_epochs=5), loss="mse")

    Reference:
        Bae & Grosse, "Delta-STN: Efficient Bilevel Optimization for Neural Networks
        using Structured Response Jacobians", 2020.
    """

    linearized = True
