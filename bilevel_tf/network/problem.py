"""A bilevel problem as two functions of lists of tensors."""

import typing
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.solution import Status
from bilevel_tf.network.composed_loss import ComposedLoss


class Hypergradient(typing.NamedTuple):
    """What a method found.

    The report has the same keys for every method:

    - "status": why the solver stopped, an int32 scalar that
      `bilevel_tf.methods.Status` explains;
    - "converged": whether the status is `Status.CONVERGED`. A method that solves
      nothing to a tolerance (`T1T2`, `DARTS`, trajectories) has converged if it took
      all its steps and met only finite numbers; this does not say that training has
      converged;
    - "iterations": products with the Hessian that the solver took, or steps of training
      that were differentiated, an int32 scalar;
    - "residual": ‖b − H·x‖ / ‖b‖ of the linear system that an implicit method solves.
      NaN means that the method does not measure one.

    Some methods add to these:

    - implicit methods "gap": xᵀ ∂L/∂w, to first order what Q would lose if the weights
      were trained to the end;
    - trajectories "first_bad_step": the number, from 0, of the first step after which
      the weights were not finite, or −1;
    - `RMAD` "recovered": whether the way back ended where training started. If not,
      the hypergradient is wrong and has the status `Status.NOT_RECOVERED`.

    Attributes:
        gradients: dQ/dλ, structured as the hyperparameters.
        outer_loss: Q, a scalar.
        weights: The weights that Q was taken at, structured as the weights: those
            given, or those at the end of a trajectory.
        report: How the method fared, a dict of scalars.

    Example:

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.ConjugateGradient())
    >>> float(result.gradients), float(result.outer_loss), float(result.weights)
    (-0.25, 0.25, 0.5)
    >>> bt.methods.Status(int(result.report["status"])).name
    'CONVERGED'
    >>> int(result.report["iterations"]), float(result.report["residual"])
    (1, 0.0)
    """

    gradients: typing.Any
    outer_loss: tf.Tensor
    weights: typing.Any
    report: dict[str, tf.Tensor]


def make_report(
    status: tf.Tensor,
    iterations: int | tf.Tensor,
    residual: float | tf.Tensor = float("nan"),
    **extras: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """The report of a `Hypergradient`, whose docstring says what the keys mean.

    Args:
        status: The `Status`, an int32 scalar.
        iterations: How many were taken.
        residual: The relative residual. Defaults to NaN: not measured.
        **extras: Further scalars.

    Returns:
        A dict of scalars by name.

    Example:

    >>> status = tf.constant(int(bt.methods.Status.CONVERGED))
    >>> bool(bt.methods.make_report(status, iterations=3)["converged"])
    True
    """
    return {
        "status": status,
        "converged": tf.equal(status, int(Status.CONVERGED)),
        "iterations": tf.convert_to_tensor(iterations, tf.int32),
        "residual": tf.convert_to_tensor(residual),
        **extras,
    }


class Problem:
    """Inner loss L, outer loss Q, and the point at which a method asks for them.

    Args:
        inner_loss: L, a function of weights, hyperparameters (both lists of tensors)
            and the number of the step, an int32 scalar by which it can choose its
            batch. Returns a scalar, or one loss per example, `[n]`, whose mean is
            taken.
        outer_loss: Q, a function of weights and hyperparameters; returns a scalar.
        weights: List of tensors. An implicit method differentiates there, and a
            trajectory starts there.
        hyperparameters: λ, a list of tensors.
        start: Function of the hyperparameters that returns θ₀, a list of tensors: the
            start of a trajectory, if it depends on them. It must return the same
            numbers at every call. Defaults to `None`: the start is `weights`.
        optimizer: The Keras optimizer or `TunedOptimizer` that takes the steps of a
            trajectory. Defaults to `None`, for methods that take no steps.
        variables: The variables whose values `weights` are. Optimizers look there for
            constraints and exclusion from weight decay. Defaults to `weights` as
            given.
        resumes: Whether a trajectory starts with the optimizer's current slots.
            Defaults to `False`: with fresh slots.
        parts: L as a `ComposedLoss`. Defaults to `None`: its parts are not known.
        example_losses: Function of weights and hyperparameters that returns one loss
            per example, `[n]`. Defaults to `inner_loss`.
        names: Names of the hyperparameters, for errors. Default to their numbers.
        packed: Function that packs the flat list of hyperparameters into the user's
            structure. Defaults to `list`.
        keeps_unused: Whether weights that L does not depend on are constants, as those
            of an output without a loss are. Defaults to `False`: an implicit method
            raises an error, because a function may have read a variable from its
            surroundings.

    Example:

    >>> from bilevel_tf.network.problem import Problem
    >>> problem = Problem(
    ...     lambda w, h, step: (w[0] - 1.0) ** 2 + h[0] * w[0] ** 2,
    ...     lambda w, h: w[0] ** 2,
    ...     weights=[tf.constant(0.5)], hyperparameters=[tf.constant(1.0)])
    >>> float(problem.inner(problem.weights, problem.hyperparameters))
    0.5
    >>> result = bt.methods.ExactImplicit().hypergradient(problem)
    >>> float(result.gradients[0])
    -0.25
    """

    def __init__(
        self,
        inner_loss: Callable,
        outer_loss: Callable,
        weights: Sequence,
        hyperparameters: Sequence,
        start: Callable | None = None,
        optimizer: keras.Optimizer | typing.Any | None = None,
        variables: Sequence | None = None,
        resumes: bool = False,
        parts: ComposedLoss | None = None,
        example_losses: Callable | None = None,
        names: Sequence[str] | None = None,
        packed: Callable | None = None,
        keeps_unused: bool = False,
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
        self.keeps_unused = keeps_unused
        self.names = names or [f"number {i}" for i in range(len(self.hyperparameters))]

    def _inner_losses(self, weights, hyperparameters, step=0):
        step = tf.convert_to_tensor(step, tf.int32)
        return tf.convert_to_tensor(self.inner_loss(weights, hyperparameters, step))

    def inner(
        self,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        step: int | tf.Tensor = 0,
    ) -> tf.Tensor:
        """L at that step, a scalar."""
        return tf.reduce_mean(self._inner_losses(weights, hyperparameters, step))

    def inner_gradients(
        self,
        weights: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        step: int | tf.Tensor = 0,
    ) -> list[tf.Tensor]:
        """∂L/∂w at that step, a list; zeros for a weight that L does not depend on."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss = self.inner(weights, hyperparameters, step)
        return dense_gradients(tape, loss, weights, unconnected_gradients="zero")

    def outer_gradients(
        self, weights: list[tf.Tensor] | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor | None]]:
        """Q, ∂Q/∂w, and the direct part ∂Q/∂λ.

        Args:
            weights: Where to take them, a list. Defaults to `self.weights`.

        Returns:
            A scalar and two lists. An entry of the second list is `None` if Q does not
            depend on that λ directly.

        Raises:
            ValueError: If the outer loss is not a scalar.
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
        gradients = dense_gradients(tape, loss, [*weights, *self.hyperparameters])
        count = len(weights)
        return loss, _zeros_for_none(gradients[:count], weights), gradients[count:]

    def hessian(self, step: int | tf.Tensor = 0) -> Hessian:
        """The second derivatives of the inner loss at the point.

        Args:
            step: The number of the step that the inner loss gets.

        Raises:
            ValueError: If the inner loss does not depend on some weight, unless
                `keeps_unused`.
        """

        def loss(weights, hyperparameters):
            return self.inner(weights, hyperparameters, step)

        hessian = Hessian(loss, self.weights, self.hyperparameters)
        if hessian.unused_weights and not self.keeps_unused:
            shapes = [tuple(self.weights[i].shape) for i in hessian.unused_weights]
            raise ValueError(
                f"`inner_loss` does not depend on weights {hessian.unused_weights} "
                f"(of shapes {shapes}), so that nothing trains them. Leave them out "
                "of `weights`, or freeze them. A variable must be read from the "
                "argument, not from the surroundings."
            )
        return hessian

    def total(
        self, direct: list[tf.Tensor | None], indirect: list[tf.Tensor | None]
    ) -> list[tf.Tensor]:
        """dQ/dλ, the sum of its two parts.

        Args:
            direct: ∂Q/∂λ at constant weights, one entry per λ; `None` if there is no
                such dependence.
            indirect: The part through the weights, likewise.

        Raises:
            ValueError: If no hyperparameter reaches the weights, or some hyperparameter
                has neither part.
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
        filled = (_zeros_for_none(x, self.hyperparameters) for x in (direct, indirect))
        return [a + b for a, b in zip(*filled, strict=True)]


def _zeros_for_none(tensors, like):
    return [
        tf.zeros_like(x) if t is None else t for t, x in zip(tensors, like, strict=True)
    ]
