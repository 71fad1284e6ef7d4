"""What solvers return: a solution, and why they stopped."""

import enum
import typing

import tensorflow as tf


class Status(enum.IntEnum):
    """Why a solver stopped, or how a training run went.

    In a `Solution` and in a report the status is an int32 scalar tensor, which works
    in graphs, in loops and under XLA. Outside of a graph, `Status(int(...))` makes a
    member of it.

    >>> status = bt.methods.Status(2)
    >>> status.name
    'NOT_POSITIVE_DEFINITE'
    >>> print(status.explain())
    The solver met a direction v with vᵀHv < 0: ...
    """

    CONVERGED = 0
    OUT_OF_ITERATIONS = 1
    NOT_POSITIVE_DEFINITE = 2
    DIVERGED = 3
    NOT_FINITE = 4
    SINGULAR = 5
    NOT_RECOVERED = 6

    @property
    def usable(self) -> bool:
        """Whether the result is what was asked for, if only roughly.

        Running out of iterations is usable: most methods are made to stop early.
        """
        return self in (Status.CONVERGED, Status.OUT_OF_ITERATIONS)

    def explain(self) -> str:
        """One sentence about what happened, and one about what to do."""
        return _EXPLANATIONS[self].replace("\n", " ")


_EXPLANATIONS = {
    Status.CONVERGED: """\
The solver reached its tolerance, or, if it has none, took all its steps and met no
trouble. Nothing needs to be done.""",
    Status.OUT_OF_ITERATIONS: """\
The solver took as many iterations as it may before the residual fell to the tolerance.
If the residual is too large for you, allow more iterations or add `damping`.""",
    Status.NOT_POSITIVE_DEFINITE: """\
The solver met a direction v with vᵀHv < 0: the Hessian H of the inner loss is not
positive definite, and the solution is the one before that direction. Train the
weights further, add `damping`, or use bilevel_tf.methods.GaussNewton, whose matrix
has no negative eigenvalue.""",
    Status.DIVERGED: """\
The terms of the Neumann series did not shrink: its learning rate is above 2 / ‖H‖, or
the Hessian H of the inner loss is not positive definite. Lower `learning_rate`, leave
it to be estimated with `learning_rate=None`, or use bilevel_tf.ConjugateGradient with
`damping`.""",
    Status.NOT_FINITE: """\
NaN or infinity turned up in the gradient of the outer loss, in the Hessian of the inner
loss, or in the weights. Check the data and both losses at these weights, and lower the
learning rate if the numbers grew in training.""",
    Status.SINGULAR: """\
The Hessian of the inner loss is singular up to rounding: the loss is flat in some
direction of the weights. Add `damping`, or a penalty on the weights.""",
    Status.NOT_RECOVERED: """\
The way back through training did not end where training started, so that the
hypergradient is wrong. Make the inner loss deterministic: it must return the same
numbers whenever it is asked again for the same weights and step.""",
}


class Solution(typing.NamedTuple):
    """What a solver of H·x = b found, and why it stopped.

    Attributes:
        x: The solution, a list of tensors.
        iterations: How many products with H it took, an int32 scalar.
        residual: ‖b − H·x‖ / ‖b‖ as the solver knows it, a scalar; NaN if it does not
            measure it.
        status: The `Status`, an int32 scalar.
    """

    x: list[tf.Tensor]
    iterations: tf.Tensor
    residual: tf.Tensor
    status: tf.Tensor

    @property
    def converged(self) -> tf.Tensor:
        """Whether the status is `Status.CONVERGED`, a boolean scalar."""
        return tf.equal(self.status, int(Status.CONVERGED))


def choose_status(
    *cases: tuple[tf.Tensor, Status], otherwise: Status = Status.CONVERGED
) -> tf.Tensor:
    """The status of the first case whose condition holds, an int32 scalar.

    Args:
        *cases: Pairs of a boolean scalar and a `Status`.
        otherwise: The status if no condition holds.
    """
    status = tf.constant(int(otherwise))
    for condition, case in reversed(cases):
        status = tf.where(condition, int(case), status)
    return status
