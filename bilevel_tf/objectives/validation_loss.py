"""The loss on data that the weights were not trained on."""

import keras

from bilevel_tf.objectives.objective import Objective


@keras.saving.register_keras_serializable("bilevel_tf")
class ValidationLoss(Objective):
    """The compiled loss on a validation batch, without weight penalties.

    The network is in inference mode. This is what hyperparameters are judged by
    unless another objective is given.
    """

    judged_on = "validation"
    responds = True
    suggested_method = "bilevel_tf.DeltaSTN()"

    def outer_loss(self, network, weights, hyperparameters, batch):
        """Q, the mean loss of the batch."""
        return network.loss(
            weights, hyperparameters, batch, training=False, penalties=False
        )
