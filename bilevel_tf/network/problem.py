"""A bilevel problem as two functions of lists of tensors."""

import typing

import tensorflow as tf

from bilevel_tf.autodiff.hessian import Hessian


class Hypergradient(typing.NamedTuple):
    """What a method found.

    Attributes:
        gradients: dQ/dλ, structured as the hyperparameters.
        outer_loss: Q, a scalar.
        weights: The weights that Q was taken at, structured as the weights: those
            given, or those at the end of a trajectory.
        report: How the method fared, scalars by name, such as a solver's
            "iterations", its relative "residual" and whether it "converged".
    """

    gradients: object
    outer_loss: tf.Tensor
    weights: object
    report: dict


class Problem:
    """Inner objective L and outer objective Q, and the point at which they are asked.

    Args:
        inner_loss: L, a function of weights, hyperparameters and the number of the
            step, an int32 scalar by which it can choose its batch. Returns a scalar,
            or one loss per example, `[n]`, whose mean is taken.
        outer_loss: Q, a function of weights and hyperparameters; returns a scalar.
        weights: List of tensors: where an implicit method differentiates, and where a
            trajectory starts.
        hyperparameters: List of tensors.
        start: θ₀ as a function of the hyperparameters, a list, where a trajectory's
            start depends on them, the same at every call; `None` where it is
            `weights`.
        optimizer: What takes the steps of a trajectory: a Keras optimizer, or a
            `TunedOptimizer`.
        variables: The variables that `weights` are the values of, for what optimizers
            ask of variables: constraints, exclusion from weight decay. Defaults to
            `weights` as given.
        resumes: Whether a trajectory starts with the optimizer's current slots.
            Defaults to `False`, with fresh ones.
        parts: L as a `ComposedLoss`, or `None` where it is not known in parts.
        example_losses: Function of weights and hyperparameters that returns one loss
            per example; defaults to `inner_loss`, which may.
        names: Names of the hyperparameters, for errors.
        packed: What makes of the flat hyperparameters the user's structure.
    """

    def __init__(
        self,
        inner_loss,
        outer_loss,
        weights,
        hyperparameters,
        start=None,
        optimizer=None,
        variables=None,
        resumes=False,
        parts=None,
        example_losses=None,
        names=None,
        packed=None,
    ):
        self.inner_loss = inner_loss
        self.outer_loss = outer_loss
        self.weights = [tf.convert_to_tensor(w) for w in weights]
        self.hyperparameters = [tf.convert_to_tensor(h) for h in hyperparameters]
        self.start = start
        self.optimizer = optimizer
        self.variables = list(weights if variables is None else variables)
        self.resumes = resumes
        self.parts = parts
        self.example_losses = example_losses or self._inner_losses
        self.packed = packed or list
        self.names = names or [f"number {i}" for i in range(len(self.hyperparameters))]

    def _inner_losses(self, weights, hyperparameters, step=0):
        step = tf.convert_to_tensor(step, tf.int32)
        return tf.convert_to_tensor(self.inner_loss(weights, hyperparameters, step))

    def inner(self, weights, hyperparameters, step=0):
        """L, a scalar."""
        return tf.reduce_mean(self._inner_losses(weights, hyperparameters, step))

    def inner_gradients(self, weights, hyperparameters, step=0):
        """∂L/∂w, a list; zeros for a weight that L does not depend on."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss = self.inner(weights, hyperparameters, step)
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        return [tf.convert_to_tensor(g) for g in gradients]

    def outer_gradients(self, weights=None):
        """Q, ∂Q/∂w and the direct ∂Q/∂λ; an entry of the last is `None` where Q does
        not depend on that λ.

        Args:
            weights: Where to take them; defaults to `self.weights`.
        """
        weights = self.weights if weights is None else weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*weights, *self.hyperparameters])
            loss = tf.convert_to_tensor(self.outer_loss(weights, self.hyperparameters))
        if loss.shape.rank:
            raise ValueError(
                "`outer_loss` must return a scalar. "
                f"Received: a tensor of shape {loss.shape}"
            )
        gradients = tape.gradient(loss, [*weights, *self.hyperparameters])
        count = len(weights)
        return loss, _zeros_for_none(gradients[:count], weights), gradients[count:]

    def hessian(self, step=0):
        """The inner loss's second derivatives at the point.

        Raises:
            ValueError: If the inner loss does not depend on some weight.
        """

        def loss(weights, hyperparameters):
            return self.inner(weights, hyperparameters, step)

        hessian = Hessian(loss, self.weights, self.hyperparameters)
        if hessian.unused_weights:
            shapes = [tuple(self.weights[i].shape) for i in hessian.unused_weights]
            raise ValueError(
                f"`inner_loss` does not depend on weights {hessian.unused_weights} "
                f"(of shapes {shapes}), so that nothing trains them. Leave them out "
                "of `weights`, or freeze them. A variable must be read from the "
                "argument, not from the surroundings."
            )
        return hessian

    def total(self, direct, indirect):
        """dQ/dλ of its direct and indirect part, either of which may be `None`.

        Raises:
            ValueError: If no hyperparameter reaches the weights, or one has neither.
        """
        if all(part is None for part in indirect):
            raise ValueError(
                "`inner_loss` does not depend on any hyperparameter in a "
                "differentiable way, so that the trained weights don't either. "
                "Hyperparameters must be read from the argument; a value that was "
                "assigned to a variable, cast to an integer or taken to NumPy is cut "
                "off."
            )
        pairs = zip(self.names, direct, indirect, strict=True)
        lost = [name for name, *parts in pairs if parts == [None, None]]
        if lost:
            raise ValueError(
                f"Neither loss depends on hyperparameter {', '.join(lost)} in a "
                "differentiable way. Leave it out, or read it from the argument."
            )
        direct = _zeros_for_none(direct, self.hyperparameters)
        indirect = _zeros_for_none(indirect, self.hyperparameters)
        return [a + b for a, b in zip(direct, indirect, strict=True)]


def _zeros_for_none(tensors, like):
    return [
        tf.zeros_like(x) if t is None else tf.convert_to_tensor(t)
        for t, x in zip(tensors, like, strict=True)
    ]
