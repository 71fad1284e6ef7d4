"""Methods that look one inner step ahead."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_positive
from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.solution import Status, choose_status
from bilevel_tf.autodiff.vectors import add_scaled, all_finite, norm, scaled
from bilevel_tf.methods.differentiating import Differentiating
from bilevel_tf.network.problem import Hypergradient, Problem, make_report

_SECOND_ORDER = ("exact", "finite_difference", None)


@keras.saving.register_keras_serializable("bilevel_tf")
class DARTS(Differentiating):
    """dQ(w′, λ)/dλ with w′ = w − ξ ∂L/∂w (Eq. 7).

    Args:
        learning_rate: ξ, the learning rate of the weights. Defaults to `None`, which is
            allowed only with `second_order=None`.
        second_order: How to find the term −ξ ∂²L/∂λ∂w · ∂Q/∂w′:

            - "exact", the default: differentiate ∂L/∂w;
            - "finite_difference": take the difference of ∂L/∂λ at w ± ε ∂Q/∂w′, as the
              paper does (Eq. 8). This needs no second derivatives and has an error
              O(ε²);
            - `None`: leave it out, with ξ = 0. The result is ∂Q(w, λ)/∂λ, the paper's
              first order.
        epsilon: Length of the step ε ∂Q/∂w′ in the finite difference, in units of the
            weights. Defaults to 0.01, the paper's.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range. At the call, if the start is a
            function of the hyperparameters; with `second_order=None`, if Q does not
            depend on some λ directly.
        TypeError: If there is no argument of that name.

    Reference:
        Liu, Simonyan & Yang, "DARTS: differentiable architecture search", 2019.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³. The learning rate 1 / H = 0.25 makes one step exact.

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.5, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.methods.DARTS(learning_rate=0.25))
    >>> float(result.gradients)
    -0.25
    """

    def __init__(
        self,
        learning_rate: float | None = None,
        second_order: str | None = "exact",
        epsilon: float = 0.01,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if second_order not in _SECOND_ORDER:
            raise ValueError(
                f"`second_order` must be one of {_SECOND_ORDER}. "
                f"Received: second_order={second_order!r}"
            )
        if learning_rate is None and second_order is not None:
            raise ValueError(
                "`learning_rate` must be the learning rate of the weights, unless "
                "second_order=None. Received: learning_rate=None"
            )
        self.learning_rate = (
            None
            if learning_rate is None
            else check_positive(learning_rate, "learning_rate")
        )
        self.second_order = second_order
        self.epsilon = check_positive(epsilon, "epsilon")
        self.direct_only = second_order is None

    def hypergradient(self, problem: Problem) -> Hypergradient:
        """dQ/dλ one step from the weights of the problem."""
        if self.second_order is None or self.learning_rate is None:
            return self._take_first_order(problem)
        if problem.start is not None:
            raise ValueError(
                "DARTS needs weights that do not depend on the hyperparameters. Use "
                "bilevel_tf.methods.Greedy. Received: weights that are a function of "
                "the hyperparameters"
            )
        inner = Hessian(problem.inner, problem.weights, problem.hyperparameters)
        weights = add_scaled(problem.weights, -self.learning_rate, inner.gradients)
        outer_loss, target, direct = problem.outer_gradients(weights)
        if self.second_order == "exact":
            cross = inner.cross_product(target)
        else:
            cross = self._take_difference(problem, target)
        indirect = [c if c is None else -self.learning_rate * c for c in cross]
        gradients = problem.total(direct, indirect)
        return Hypergradient(gradients, outer_loss, weights, _report(1, weights))

    def _take_difference(self, problem, target):
        """(∂L/∂λ(w⁺) − ∂L/∂λ(w⁻)) / 2ε with w± = w ± ε ∂Q/∂w′."""
        size = norm(target)
        unit = scaled(tf.math.divide_no_nan(tf.ones_like(size), size), target)
        sides = []
        for sign in (1, -1):
            weights = add_scaled(problem.weights, sign * self.epsilon, unit)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(problem.hyperparameters)
                loss = problem.inner(weights, problem.hyperparameters)
            sides.append(dense_gradients(tape, loss, problem.hyperparameters))
        return [
            a if a is None else tf.cast(size, a.dtype) * (a - b) / (2 * self.epsilon)
            for a, b in zip(*sides, strict=True)
        ]

    def _take_first_order(self, problem):
        outer_loss, _, direct = problem.outer_gradients()
        pairs = zip(problem.names, direct, strict=True)
        lost = [name for name, gradient in pairs if gradient is None]
        if lost:
            raise ValueError(
                "The first order of DARTS sees only what the outer loss depends on "
                f"directly, and it does not depend on {', '.join(lost)}. Use "
                'second_order="exact".'
            )
        report = _report(0, problem.weights)
        return Hypergradient(direct, outer_loss, problem.weights, report)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "second_order": self.second_order,
            "epsilon": self.epsilon,
        }


def _report(steps, weights):
    status = choose_status((~all_finite(weights), Status.NOT_FINITE))
    return make_report(status, steps)
