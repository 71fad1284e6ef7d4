"""One optimizer step ahead."""

import keras

from bilevel_tf.methods.trajectory.unrolled import Unrolled


@keras.saving.register_keras_serializable("bilevel_tf")
class Greedy(Unrolled):
    """dQ(θ₁(λ), λ)/dλ, where θ₁ is the weights after one step of the optimizer.

    `Unrolled` with one step.

    Args:
        **kwargs: See `Method`.

    Reference:
        Luketina et al., "Scalable gradient-based tuning of continuous regularization
        hyperparameters", 2016, without their simplification `T1T2`.
    """

    def __init__(self, **kwargs):
        super().__init__(1, **kwargs)

    def get_config(self):
        config = super().get_config()
        for name in ("steps", "truncation", "checkpointed"):
            del config[name]
        return config
