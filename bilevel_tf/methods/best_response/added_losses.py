"""Losses that layers add, if every example has hyperparameters of its own."""

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.methods.method import Method
from bilevel_tf.network.network import Network
from bilevel_tf.regularizers.norms import NormPenalty

_LIBRARIES = ("keras.", "bilevel_tf.")


def check_added_losses(network: Network, method: Method) -> None:
    """Raise a `ValueError` if a tuned factor multiplies a mean over the examples.

    In a perturbed pass a hyperparameter is one number per example. Times a scalar it
    is a loss per example, which Keras would add up; and the response of one example
    could not be told from that of another by it.
    """
    for layer in network.layers:
        penalty = layer.activity_regularizer
        if references(penalty) and not isinstance(penalty, NormPenalty):
            raise ValueError(
                f"`activity_regularizer` of {type(layer).__name__} '{layer.name}' must "
                "be bilevel_tf.L2, L1 or L1L2 if it is tuned: under "
                f"{type(method).__name__} every example has a factor of its own. For "
                "another one use a method that differentiates training, such as "
                "bilevel_tf.Neumann(). "
                f"Received: {type(penalty).__name__} with "
                f"'{references(penalty)[0].name}'"
            )
    # No layer of Keras or of this library adds a hyperparameter in another way.
    modules = {layer: type(layer).__module__ for layer in network.layers}
    own = [layer for layer in modules if not modules[layer].startswith(_LIBRARIES)]
    if not own:
        return
    try:
        plain, perturbed = _trace_ranks(network, own)
    except Exception:
        # Whatever a layer raises that cannot be traced without data.
        return
    for layer in own:
        if perturbed[layer] != plain[layer]:
            _refuse(layer, method)


def _trace_ranks(network: Network, layers: list) -> list[dict]:
    """Find the ranks of what layers add, in an ordinary and in a perturbed pass."""
    space, found = network.hyperparameters, []

    def run(*x):
        x = keras.tree.pack_sequence_as(network.inputs, x)
        h = tf.convert_to_tensor(space.unconstrained)
        batch = tf.shape(keras.tree.flatten(x)[0])[0]
        values = space.constrain(tf.repeat(h[None], batch, 0))
        weights = [tf.convert_to_tensor(w) for w in network.weights]
        for attributes in ({}, {"values": values}):
            with network.at(weights, [h], **attributes):
                network(x, training=True)
                losses = [_keras.get_own_losses(layer) for layer in layers]
            ranks = [[loss.shape.rank for loss in added] for added in losses]
            found.append(dict(zip(layers, ranks, strict=True)))

    inputs = keras.tree.flatten(network.inputs)
    specs = [tf.TensorSpec(t.shape, t.dtype) for t in inputs]
    _keras.trace_graph(run, specs)
    return found


def _refuse(layer: keras.Layer, method: Method) -> None:
    names = ", ".join(f"'{reference.name}'" for reference in references(layer))
    raise ValueError(
        f"{type(layer).__name__} '{layer.name}' adds a loss in which a hyperparameter "
        "multiplies a scalar. Under "
        f"{type(method).__name__} every example has a value of its own, which must "
        "multiply that example's term: with `terms` of shape [batch], write "
        "self.add_loss(keras.ops.mean(bilevel_tf.hyperparameters.value_for(factor, "
        "terms) * terms)). A penalty on weights belongs in a regularizer. Or use a "
        "method that differentiates training, such as bilevel_tf.Neumann(). Received: "
        f"a loss that has one axis more with a value per example, in a layer that "
        f"holds {names or 'no hyperparameter of its own'}"
    )
