"""The loss on data that the weights were not trained on."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_non_negative
from bilevel_tf.network.network import Network
from bilevel_tf.objectives.objective import Objective


@keras.saving.register_keras_serializable("bilevel_tf")
class ValidationLoss(Objective):
    """The compiled loss on validation data, without weight penalties.

    Q(w, λ) = L_V(w, λ), the mean loss of a batch with the network in inference mode. It
    depends on the hyperparameters mostly through the trained weights. This is the
    default objective of `BilevelModel.compile`. All methods that differentiate training
    or fit a best response can use it.

    Args:
        validation_split: Share of the training arrays, from their end, that becomes the
            validation data of a `fit` that is given neither `validation_data` nor
            `validation_split`; in (0, 1), or 0 for none. It serves when another tool
            calls `fit`, as scikit-learn's `GridSearchCV` does. Defaults to 0: such a
            `fit` raises an error.

    Raises:
        ValueError: If `validation_split` is not in [0, 1).

    Example:

    >>> hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    >>> inputs = keras.Input((3,))
    >>> outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    >>> model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    >>> model.compile("sgd", loss="mse", objective=bt.objectives.ValidationLoss(0.25))
    >>> x, y = np.ones((40, 3)), np.zeros((40, 1))
    >>> sorted(model.fit(x, y, batch_size=4, verbose=0).history)
    ['l2', 'loss', 'val_loss']
    """

    judged_on = "validation"
    responds = True
    suggested_method = "bilevel_tf.DeltaSTN()"

    def __init__(self, validation_split: float = 0.0):
        check_non_negative(validation_split, "validation_split")
        if validation_split >= 1.0:
            raise ValueError(
                "`validation_split` must be less than 1. "
                f"Received: validation_split={validation_split}"
            )
        self.validation_split = validation_split

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

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes this objective again."""
        return {"validation_split": self.validation_split}
