"""The loss on data that the weights were not trained on."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.network.network import Network
from bilevel_tf.objectives.objective import Objective


@keras.saving.register_keras_serializable("bilevel_tf")
class ValidationLoss(Objective):
    """The loss on validation data, without weight penalties.

    Q(w, λ) = L_V(w, λ), the mean loss of a batch with the network in inference mode. It
    depends on the hyperparameters mostly through the trained weights. The loss is the
    `outer_loss` that `BilevelModel.compile` is given or, without one, the training
    loss. This is the default objective, and all methods that differentiate training or
    fit a best response can use it.

    Weight penalties are left out, because they are means of training and not an end.
    What layers add, by `add_loss` or an activity regularizer, counts unless
    `added_losses` is `False`. A hyperparameter that stands in it, such as the β of a
    variational autoencoder or the factor of an activity regularizer, would be judged by
    a number that it lowers itself, whatever the data say.

    Args:
        added_losses: Whether what layers add counts. Defaults to `True`, as in Keras's
            `evaluate`.

    Raises:
        ValueError: If `added_losses` is neither `True` nor `False`. At `compile`, if it
            is `False` and there is no loss of the outputs.

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.HyperDense(1, activity_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> objective = bt.objectives.ValidationLoss(added_losses=False)
    >>> model.compile("sgd", loss="mse", objective=objective)
    """

    judged_on = "validation"
    responds = True
    takes_outer_loss = True
    suggested_method = "bilevel_tf.DeltaSTN()"

    def __init__(self, added_losses: bool = True):
        if not isinstance(added_losses, bool):
            raise ValueError(
                "`added_losses` of ValidationLoss must be True or False. "
                f"Received: added_losses={added_losses!r}"
            )
        self.added_losses = added_losses

    def check(self, network: Network) -> None:
        """Check that something judges.

        Raises:
            ValueError: If added losses are left out, and there are no others.
        """
        none = all(loss is None for loss in network.outer_losses)
        if none and not self.added_losses:
            raise ValueError(
                "`added_losses` of ValidationLoss must be True if `compile` has no "
                "`loss` and no `outer_loss`: nothing else judges then. Received: "
                "added_losses=False, loss=None and outer_loss=None"
            )

    def outer_loss(
        self,
        network: Network,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: tuple,
    ) -> tf.Tensor:
        """Return Q, the mean loss of the batch; arguments as in `Objective`."""
        return network.outer_loss(weights, hyperparameters, batch, self.added_losses)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this objective again."""
        return {**super().get_config(), "added_losses": self.added_losses}
