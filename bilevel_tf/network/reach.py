"""Which hyperparameters reach the outer objective of a network, and how."""

import keras
import tensorflow as tf

from bilevel_tf import _keras
from bilevel_tf.hyperparameters.references import references
from bilevel_tf.network.influence import Influence
from bilevel_tf.network.network import Network
from bilevel_tf.optimizers.tuned import TunedOptimizer


class Reach:
    """The ways from hyperparameters to the outer objective of a compiled network.

    Targets are not known before `fit`. The derivative of a loss by the outputs is
    therefore an argument of the graph that is traced; it stands for anything that a
    loss computes from an output and the hyperparameters that the loss holds.

    Args:
        network: The compiled network.
        on_training_loss: Whether the objective is judged by the whole training loss, in
            place of `outer_losses` in inference mode.

    Raises:
        Exception: Whatever the layers raise if they cannot be traced without data.
    """

    def __init__(self, network: Network, on_training_loss: bool):
        self._network = network
        self._on_training_loss = on_training_loss
        self._weights = list(range(len(network.weights)))
        self._inputs = keras.tree.flatten(network.inputs)
        self._outputs = keras.tree.flatten(network.outputs)
        tensors = [*network.weights, *self._inputs, *self._outputs]
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]
        self._influence = Influence(self._run, network.hyperparameters, specs)

    def _run(self, h: tf.Tensor, current: dict, *arguments: tf.Tensor) -> dict:
        """Compute what has to be followed back, on the arguments of the graph."""
        network, count = self._network, len(self._weights)
        weights, rest = list(arguments[:count]), arguments[count:]
        x = keras.tree.pack_sequence_as(network.inputs, rest[: len(self._inputs)])
        results = self._train(h, current, weights, x, rest[len(self._inputs) :])
        if isinstance(network.stepping_optimizer, TunedOptimizer):
            values = network.stepping_optimizer.values(current, 0)
            results["optimizer"] = list(values.values())
        with network.at(weights, [h], current=current, penalties=False):
            for i, output in enumerate(keras.tree.flatten(network(x, training=False))):
                results["judged", i] = output
            for layer in network.layers:
                results["judged", layer] = _keras.get_own_losses(layer)
        return results

    def _train(self, h, current, weights, x, cotangents) -> dict:
        """Compute outputs and gradients of a training pass."""
        network = self._network
        with network.at(weights, [h], current=current), tf.GradientTape() as tape:
            tape.watch(weights)
            outputs = keras.tree.flatten(network(x, training=True))
            added = [*network.added_losses(), *network.penalties()]
        pairs = zip(outputs, cotangents, network.losses, strict=True)
        sources = [(out, c) for out, c, loss in pairs if loss is not None]
        sources += [(loss, tf.ones_like(loss)) for loss in added]
        gradients: list = [None for _ in weights]
        if sources:
            targets, factors = map(list, zip(*sources, strict=True))
            gradients = tape.gradient(targets, weights, output_gradients=factors)
        results: dict = {("gradient", i): g for i, g in enumerate(gradients)}
        results |= {("output", i): output for i, output in enumerate(outputs)}
        return {**results, "added": added}

    def used(self, direct_only: bool) -> set[str]:
        """Return the names of the hyperparameters that reach the outer objective.

        Args:
            direct_only: Whether they must do so at constant weights.
        """
        names, pending = set(), set()
        for key in self._list_judged():
            names |= self._influence.names(key)
            pending |= self._influence.arguments(key)
        by_training = self._on_training_loss
        judges = self._network.losses if by_training else self._network.outer_losses
        names |= {reference.name for reference in references(judges)}
        if not direct_only:
            names |= self._follow_training(pending)
            if isinstance(self._network.stepping_optimizer, TunedOptimizer):
                names |= self._influence.names("optimizer")
        return names

    def _list_judged(self) -> list:
        """List the results that the outer objective is computed from."""
        network = self._network
        if self._on_training_loss:
            losses = enumerate(network.losses)
            return ["added", *[("output", i) for i, loss in losses if loss is not None]]
        losses = enumerate(network.outer_losses)
        keys: list = [("judged", i) for i, loss in losses if loss is not None]
        if network.objective.added_losses:
            keys += [("judged", layer) for layer in network.layers]
        return keys

    def _follow_training(self, pending: set[int]) -> set[str]:
        """Find what moves the weights that the outer objective is computed from."""
        names: set[str] = set()
        seen: set[int] = set()
        first_output = len(self._weights) + len(self._inputs)
        if getattr(self._network.optimizer, "global_clipnorm", None):
            # Every gradient then enters every step.
            pending = {*pending, *self._weights}
        while pending - seen:
            number = (pending - seen).pop()
            seen.add(number)
            if number in self._weights:
                key: tuple = ("gradient", number)
            elif number >= first_output:
                output = number - first_output
                key = ("output", output)
                held = references(self._network.losses[output])
                names |= {reference.name for reference in held}
            else:
                continue
            names |= self._influence.names(key)
            pending = pending | self._influence.arguments(key)
        return names

    def judging_themselves(self) -> dict[str, keras.Layer]:
        """Find hyperparameters in what a layer adds to the loss that judges.

        Returns:
            By the name of the hyperparameter, the layer that holds it and adds a loss
            computed from it.
        """
        found: dict[str, keras.Layer] = {}
        if self._on_training_loss or not self._network.objective.added_losses:
            return found
        for layer in self._network.layers:
            names = self._influence.names(("judged", layer))
            parts = _keras.flatten_layers(layer, include_self=True)
            held = {r.name for part in parts for r in references(part)}
            found |= dict.fromkeys(names & held, layer)
        return found
