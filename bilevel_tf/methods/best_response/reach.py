"""Hyperparameters that a best response cannot reach."""

from bilevel_tf.hyperparameters.references import references
from bilevel_tf.layers.hyper.hyper_layer import HyperLayer
from bilevel_tf.layers.variational.variational_layer import VariationalLayer
from bilevel_tf.methods.method import Method
from bilevel_tf.network.network import Network


def check_penalties_respond(network: Network) -> None:
    """Raise a `ValueError` if a tuned penalty is on a layer that cannot respond."""
    for layer in network.layers:
        if isinstance(layer, HyperLayer):
            continue
        if isinstance(layer, VariationalLayer) and references(layer):
            raise ValueError(
                f"'{references(layer)[0].name}' acts on {type(layer).__name__} "
                f"'{layer.name}', whose weights cannot respond to it. Use a method "
                "that differentiates training, such as bilevel_tf.ConjugateGradient(), "
                "or objective=bilevel_tf.ELBO() with "
                "bilevel_tf.methods.DARTS(second_order=None). Received: "
                f"'{references(layer)[0].name}' in '{layer.name}'"
            )
        for key, regularizer in vars(layer).items():
            if key.endswith("regularizer") and references(regularizer):
                raise ValueError(
                    f"`{key}` of {type(layer).__name__} '{layer.name}' has a tuned "
                    "factor, but the layer's weights cannot respond to it. Use "
                    "a layer such as bilevel_tf.HyperDense, a method that "
                    "differentiates training such as bilevel_tf.Neumann(), or a fixed "
                    "factor. "
                    f"Received: {key} with '{references(regularizer)[0].name}'"
                )


def check_factors_scalar(network: Network, method: Method) -> None:
    """Raise a `ValueError` if a penalty has a factor per weight or unit."""
    for variable in network.weights:
        for factor in references(variable.regularizer):
            if factor.scale.shape != ():
                raise ValueError(
                    f"{type(method).__name__} needs one penalty factor per weight "
                    "tensor. Use a method that differentiates training, such as "
                    "bilevel_tf.Neumann(), for more. "
                    f"Received: '{factor.name}' of shape {factor.scale.shape}"
                )
