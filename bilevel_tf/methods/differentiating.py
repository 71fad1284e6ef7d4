"""What the methods share that differentiate the training of any model."""

import tensorflow as tf

from bilevel_tf.hyperparameters.hyperparameter import Hyperparameter
from bilevel_tf.layers.noise.dropout import HyperDropout
from bilevel_tf.methods.method import Method, all_at_once, check_optimizer_not_tuned
from bilevel_tf.network.network import Network
from bilevel_tf.network.problem import Hypergradient, Problem


class Differentiating(Method):
    """Base class of methods that find dQ/dλ of a `Problem`.

    These methods need no special layers. In `fit`, the inner step is Keras's own. The
    outer step makes a `Problem` of the present weights, the batch that the objective is
    taken on, and `inner_batches` training batches; it finds dQ/dλ and hands it to
    the hyper-optimizer. `bilevel_tf.hypergradient` uses the same methods on plain
    functions.

    To write such a method, subclass this class and implement `hypergradient`. Name in
    `log_names` the entries of its report that `fit` is to show, each with the prefix
    "hypergradient_".

    Args:
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Attributes:
        inner_batches: How many training batches an outer step needs. Defaults to
            1.
        needs_optimizer: Whether the method differentiates optimizer steps, so that it
            reaches hyperparameters of a `TunedOptimizer`. Defaults to `False`.

    Example:

    A method that leaves out how the weights depend on λ:

    >>> class Direct(bt.methods.Differentiating):
    ...     def hypergradient(self, problem):
    ...         loss, _, direct = problem.outer_gradients()
    ...         status = tf.constant(int(bt.methods.Status.CONVERGED))
    ...         report = bt.methods.make_report(status, iterations=0)
    ...         return bt.methods.Hypergradient(direct, loss, problem.weights, report)
    >>> result = bt.hypergradient(
    ...     lambda w, h: h * w**2,
    ...     lambda w, h: 3.0 * h * w,
    ...     weights=tf.constant(2.0),
    ...     hyperparameters=tf.constant(1.0),
    ...     method=Direct(),
    ... )
    >>> float(result.gradients)
    6.0
    """

    inner_batches = 1
    needs_optimizer = False

    def check(self, network: Network) -> None:
        """Check that the losses can be differentiated by the hyperparameters.

        Raises:
            ValueError: If a hyperparameter acts in a way that has no derivative, has a
                prior, which this method would ignore, or is in the optimizer, whose
                steps this method does not follow.
        """
        check_differentiable(network, self)
        if not self.needs_optimizer:
            check_optimizer_not_tuned(network, self)

    def hypergradient(self, problem: Problem) -> Hypergradient:
        """Find dQ/dλ of a `Problem`.

        Args:
            problem: L, Q and the point at which the derivative is taken.

        Returns:
            A `Hypergradient`, whose gradients and weights are flat lists.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `hypergradient`."
        )

    def outer_step(
        self, network: Network, validation: tuple, training: tuple | None
    ) -> dict[str, tf.Tensor]:
        """Step λ along −dQ/dλ, with Q the objective on the given batch.

        Arguments as in `Method`.

        Returns:
            Scalars under `log_names` and those of the objective.
        """
        problem = network.problem(training, validation)
        return self.descend(network, self.hypergradient(problem))

    def descend(self, network: Network, found: Hypergradient) -> dict[str, tf.Tensor]:
        """Hand a `Hypergradient` to the hyper-optimizer and return the logs.

        Args:
            network: The network.
            found: What `hypergradient` returned.
        """
        variables = self.tuned_variables(network.hyperparameters)
        # The identity, unless the optimizer divides gradients by a scale.
        gradients = [network.hyper_optimizer.scale_loss(g) for g in found.gradients]
        network.hyper_optimizer.apply(all_at_once(gradients), variables)
        report = {f"hypergradient_{k}": v for k, v in found.report.items()}
        logs = {name: report[name] for name in self.log_names}
        logs |= network.objective.logs(network, found.outer_loss)
        return {name: tf.cast(value, "float32") for name, value in logs.items()}


def check_differentiable(network: Network, method: Method) -> None:
    """Raise a `ValueError` if the effect of a hyperparameter has no derivative."""
    name, fitting = type(method).__name__, "DeltaSTN, CenteredSTN, STN or Hypernetwork"
    for layer in network.layers:
        rate = getattr(layer, "rate", None)
        if isinstance(layer, HyperDropout) and isinstance(rate, Hyperparameter):
            raise ValueError(
                f"{name} cannot reach '{rate.name}', the rate of the dropout in "
                f"'{layer.name}': a unit is kept or dropped, so that the loss has no "
                "derivative in the rate. Use a method that fits a response: "
                f"{fitting}; or tune HyperGaussianNoise instead. "
                f"Received: rate='{rate.name}'"
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
                f"distribution of hyperparameters. Leave it out, or use {fitting}. "
                f"Received: prior={scale.prior!r}"
            )
