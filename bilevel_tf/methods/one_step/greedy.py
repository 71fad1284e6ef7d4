"""One optimizer step ahead."""

from typing import Any

import keras

from bilevel_tf.methods.trajectory.unrolled import Unrolled
from bilevel_tf.methods.unknown_arguments import refuse_unknown


@keras.saving.register_keras_serializable("bilevel_tf")
class Greedy(Unrolled):
    """dQ(θ₁(λ), λ)/dλ, where θ₁ is the weights after one step of the optimizer.

    This is `Unrolled` with one step.

    Args:
        restart: In `fit`, start the run of every outer step from the weights that the
            model had when it was compiled, with fresh slots, and leave the model at the
            end of that run. Defaults to `False`: look ahead from the current weights
            and slots, and do not change them.
        fixed_batches: In `fit`, take the same training batch for all outer steps.
            Defaults to `False`: take a fresh one.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range. At the call, if there is no
            optimizer, or its steps cannot be differentiated.
        FloatingPointError: At the call, when running eagerly, if the weights became
            infinite or NaN.

    Reference:
        Luketina et al., "Scalable gradient-based tuning of continuous regularization
        hyperparameters", 2016, without their simplification `T1T2`.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³. The learning rate 1 / H = 0.25 makes one step exact.

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.methods.Greedy(),
    ...     optimizer=keras.optimizers.SGD(0.25))
    >>> float(result.gradients)
    -0.25
    """

    def __init__(
        self,
        restart: bool = False,
        fixed_batches: bool = False,
        train_steps: int = 5,
        valid_steps: int = 1,
        warmup_epochs: int = 0,
        **unknown: Any,
    ):
        refuse_unknown(type(self), unknown)
        super().__init__(
            1,
            restart=restart,
            fixed_batches=fixed_batches,
            train_steps=train_steps,
            valid_steps=valid_steps,
            warmup_epochs=warmup_epochs,
        )

    def get_config(self) -> dict:
        config = super().get_config()
        for name in ("steps", "truncation", "checkpointed"):
            del config[name]
        return config
