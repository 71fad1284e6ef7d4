"""What the methods share that differentiate the training of any model."""

import tensorflow as tf

from bilevel_tf.methods.method import Method, all_at_once


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

    def build(self, model):
        """Check that dQ/dλ can be had by differentiation.

        Raises:
            ValueError: If a hyperparameter acts in a way that has no derivative, or
                has a prior, which this method has no use for.
        """
        model.check_hyperparameters_differentiable(type(self).__name__)
        if not self.needs_optimizer:
            model.check_optimizer_not_tuned(type(self).__name__)

    def hypergradient(self, problem):
        """dQ/dλ of a `Problem`.

        Returns:
            A `Hypergradient`, whose gradients and weights are flat lists.
        """
        raise NotImplementedError

    def outer_step(self, model, validation, training):
        """λ ← a step along dQ/dλ, Q being the loss of the validation batch."""
        return self.descend(
            model, self.hypergradient(model.problem(training, validation))
        )

    def descend(self, model, found):
        """Hand a `Hypergradient` to the model's hyper-optimizer; returns the logs."""
        variables = self.tuned_variables(model.hyperparameters)
        model.hyper_optimizer.apply(all_at_once(found.gradients), variables)
        report = {f"hypergradient_{k}": v for k, v in found.report.items()}
        logs = {name: report[name] for name in self.log_names}
        logs |= model.objective.logs(model, found.outer_loss)
        return {name: tf.cast(value, "float32") for name, value in logs.items()}
