"""The loss on data that the weights were not trained on."""

import keras
import tensorflow as tf

from bilevel_tf.network.network import Network
from bilevel_tf.objectives.objective import Objective


@keras.saving.register_keras_serializable("bilevel_tf")
class ValidationLoss(Objective):
    """The compiled loss on validation data, without weight penalties.

    Q(w, λ) = L_V(w, λ), the mean loss of a batch with the network in inference mode. It
    depends on the hyperparameters mostly through the trained weights. This is the
    default objective of `BilevelModel.compile`. It takes no arguments, and all methods
    that differentiate training or fit a best response can use it.

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile("sgd", loss="mse", objective=bt.objectives.ValidationLoss())
    """

    judged_on = "validation"
    responds = True
    suggested_method = "bilevel_tf.DeltaSTN()"

    def outer_loss(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """Return Q, the mean loss of the batch; arguments as in `Objective`."""
        return network.loss(
            weights, hyperparameters, batch, training=False, penalties=False
        )
