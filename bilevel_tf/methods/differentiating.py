"""What the methods share that differentiate the training of any model."""

import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.layers.noise.dropout import HyperDropout
from bilevel_tf.methods.method import Method, all_at_once, check_optimizer_not_tuned


class Differentiating(Method):
    """Finds dQ/dλ of a `Problem`; needs no special layers.

    A subclass gives `hypergradient(problem)`. In `fit`, the inner step is Keras's own;
    the outer step makes a `Problem` of a validation batch and fresh training batches,
    with the current weights, and hands dQ/dλ to the hyper-optimizer.

    Attributes:
        needs_optimizer: Whether the method differentiates optimizer steps.
    """

    inner_batches = 1
    needs_optimizer = False

    def check(self, network):
        """Check that the losses can be differentiated by the hyperparameters.

        Raises:
            ValueError: If a hyperparameter acts in a way that has no derivative, or
                has a prior, which this method would ignore.
        """
        check_differentiable(network, self)
        if not self.needs_optimizer:
            check_optimizer_not_tuned(network, self)

    def hypergradient(self, problem):
        """dQ/dλ of a `Problem`.

        Returns:
            A `Hypergradient`, whose gradients and weights are flat lists.
        """
        raise NotImplementedError

    def outer_step(self, network, validation, training):
        """λ ← a step along dQ/dλ, where Q is the objective on the given batch."""
        problem = network.problem(training, validation)
        return self.descend(network, self.hypergradient(problem))

    def descend(self, network, found):
        """Hand a `Hypergradient` to the hyper-optimizer and return the logs."""
        variables = self.tuned_variables(network.hyperparameters)
        network.hyper_optimizer.apply(all_at_once(found.gradients), variables)
        report = {f"hypergradient_{k}": v for k, v in found.report.items()}
        logs = {name: report[name] for name in self.log_names}
        logs |= network.objective.logs(network, found.outer_loss)
        return {name: tf.cast(value, "float32") for name, value in logs.items()}


def check_differentiable(network, method):
    """Raise a `ValueError` if the effect of a hyperparameter has no derivative."""
    name, fitting = type(method).__name__, "DeltaSTN, CenteredSTN, STN or Hypernetwork"
    for layer in network.layers:
        rate = getattr(layer, "rate", None)
        if isinstance(layer, HyperDropout) and isinstance(rate, Hyperparameter):
            raise ValueError(
                f"{name} cannot reach '{rate.name}', the rate of the dropout in "
                f"'{layer.name}': a unit is kept or not, so that the loss has no "
                "derivative in the rate. Use a method that fits a response: "
                f"{fitting}; or tune HyperGaussianNoise instead."
            )
    for tuned, scale in network.hyperparameters.scales.items():
        if not scale.differentiable:
            raise ValueError(
                f"{name} cannot reach '{tuned}', {scale.describe()}, which has no "
                f"derivative. Use a method that fits a response: {fitting}."
            )
        if scale.prior is not None:
            raise ValueError(
                f"`prior` of '{tuned}' has no effect under {name}, which keeps no "
                f"distribution of hyperparameters. Leave it out, or use {fitting}."
            )
