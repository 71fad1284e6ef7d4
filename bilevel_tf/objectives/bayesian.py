"""What objectives share that judge by a likelihood and priors, on training data."""

import keras

from bilevel_tf.objectives.likelihoods import (
    check_no_weight_decay,
    check_unweighted,
    likelihoods,
)
from bilevel_tf.objectives.objective import Objective


class BayesianObjective(Objective):
    """Its training loss is a mean negative log likelihood, and priors do the rest."""

    def data_size(self, network):
        """N of the priors; a `ValueError` if they disagree."""
        raise NotImplementedError

    def check(self, network):
        """Check the losses, the optimizer, and that there is one N."""
        name = type(self).__name__
        likelihoods(network, name)
        self.data_size(network)
        check_no_weight_decay(network, name)

    def prepare(self, network, x, y, sample_weight):
        """The training data as they are, after checks.

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
                f"{shape[0]} examples. Make them with data_size={shape[0]} (what "
                "`validation_split` takes away does not count). "
                f"Received: data_size={data_size} and {shape[0]} examples"
            )
        return x, y, sample_weight

    def inner_step(self, network, x, y, sample_weight):
        """As of every objective; weights may also come with a dataset or classes."""
        check_unweighted(sample_weight, type(self).__name__)
        return super().inner_step(network, x, y, sample_weight)
