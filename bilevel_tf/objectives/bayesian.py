"""What the objectives share that judge by a likelihood and priors."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.network.network import Network
from bilevel_tf.objectives.likelihoods import (
    check_no_weight_decay,
    check_unmasked,
    check_unweighted,
    likelihoods,
)
from bilevel_tf.objectives.objective import Objective


class BayesianObjective(Objective):
    """Base class of objectives on training data whose loss is a likelihood.

    The training loss must be a mean negative log likelihood, and only priors may hold
    the weights. A subclass implements `data_size` and `outer_loss`.
    """

    def data_size(self, network: Network) -> int:
        """Return N, the number of training examples that the priors were given.

        Raises:
            ValueError: If the priors disagree on it.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `data_size`.")

    def check(self, network: Network) -> None:
        """Check losses, masks and optimizer, and that the priors agree on N.

        Raises:
            ValueError: If one of them does not fit.
        """
        name = type(self).__name__
        likelihoods(network, name)
        self.data_size(network)
        check_no_weight_decay(network, name)
        check_unmasked(network, name)

    def prepare(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[Any, Any, Any]:
        """Return the training data as they are, after checks.

        Raises:
            ValueError: If arrays have another number of examples than the priors were
                given, or there are sample weights.
        """
        check_unweighted(sample_weight, type(self).__name__)
        data_size = self.data_size(network)
        shape = getattr(keras.tree.flatten(x)[0], "shape", None)
        if shape and shape[0] != data_size:
            raise ValueError(
                f"The priors have data_size={data_size}, and training has "
                f"{shape[0]} examples. Make the priors with data_size={shape[0]} "
                "(examples that `validation_split` takes away do not count). "
                f"Received: data_size={data_size} and {shape[0]} examples"
            )
        return x, y, sample_weight

    def inner_step(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """Train on a batch that has no weights; arguments as in `Objective`.

        Raises:
            ValueError: If a data set or `class_weight` gives weights to the examples.
        """
        check_unweighted(sample_weight, type(self).__name__)
        return super().inner_step(network, x, y, sample_weight)
