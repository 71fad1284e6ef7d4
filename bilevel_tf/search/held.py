"""Training at hyperparameters that stay as they are."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.methods.method import Method
from bilevel_tf.network.network import Network


@keras.saving.register_keras_serializable("bilevel_tf")
class HeldHyperparameters(Method):
    """No method at all: inner steps train the weights, and nothing moves λ.

    An inner step is the one that Keras would take on the plain network with these
    hyperparameters, and it costs the same.
    """

    def outer_step(
        self, network: Network, validation: tuple, training: tuple | None
    ) -> dict[str, tf.Tensor]:
        """Move nothing."""
        return {}

    def tuned_variables(self, space: Any) -> list[keras.Variable]:
        """Return no variables: the hyper-optimizer has nothing to do."""
        return []
