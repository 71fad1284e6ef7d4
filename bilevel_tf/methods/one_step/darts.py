"""Methods that look one inner step ahead."""

import keras
import tensorflow as tf

from bilevel_tf._arguments import positive
from bilevel_tf.autodiff.hessian import Hessian
from bilevel_tf.autodiff.vectors import add_scaled, norm, scaled
from bilevel_tf.methods.differentiating import Differentiating
from bilevel_tf.network.problem import Hypergradient

_SECOND_ORDER = ("exact", "finite_difference", None)


@keras.saving.register_keras_serializable("bilevel_tf")
class DARTS(Differentiating):
    """dQ(w′, λ)/dλ with w′ = w − ξ ∂L/∂w (Eq. 7).

    Args:
        learning_rate: ξ, the learning rate of the weights; not needed with
            `second_order=None`.
        second_order: How the term −ξ ∂²L/∂λ∂w · ∂Q/∂w′ is found. "exact": by
            differentiating ∂L/∂w, the default. "finite_difference": as the paper does,
            by the difference of ∂L/∂λ at w ± ε ∂Q/∂w′ (Eq. 8), which needs no second
            derivatives and has an error O(ε²). `None`: not at all; it is then
            ∂Q(w, λ)/∂λ, the paper's first order, with ξ = 0.
        epsilon: The length of the step ε ∂Q/∂w′. Defaults to 0.01, the paper's.
        **kwargs: See `Method`.

    Raises:
        ValueError: If an argument is out of range. At the call with
            `second_order=None`, if Q does not depend on some λ directly.

    Reference:
        Liu, Simonyan & Yang, "DARTS: differentiable architecture search", 2019.
    """

    def __init__(
        self, learning_rate=None, second_order="exact", epsilon=0.01, **kwargs
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
            None if learning_rate is None else positive(learning_rate, "learning_rate")
        )
        self.second_order = second_order
        self.epsilon = positive(epsilon, "epsilon")

    def hypergradient(self, problem):
        """dQ/dλ one step from the weights of the problem."""
        if self.second_order is None:
            return self._first_order(problem)
        if problem.start is not None:
            raise ValueError(
                "DARTS takes the weights as given, and here they are a function of the "
                "hyperparameters. Use bilevel_tf.methods.Greedy."
            )
        inner = Hessian(problem.inner, problem.weights, problem.hyperparameters)
        weights = add_scaled(problem.weights, -self.learning_rate, inner.gradients)
        outer_loss, target, direct = problem.outer_gradients(weights)
        if self.second_order == "exact":
            cross = inner.cross_product(target)
        else:
            cross = self._difference(problem, target)
        indirect = [
            c if c is None else -self.learning_rate * tf.convert_to_tensor(c)
            for c in cross
        ]
        gradients = problem.total(direct, indirect)
        return Hypergradient(gradients, outer_loss, weights, {})

    def _difference(self, problem, target):
        """(∂L/∂λ(w⁺) − ∂L/∂λ(w⁻)) / 2ε with w± = w ± ε ∂Q/∂w′."""
        size = norm(target)
        unit = scaled(tf.math.divide_no_nan(tf.ones_like(size), size), target)
        sides = []
        for sign in (1, -1):
            weights = add_scaled(problem.weights, sign * self.epsilon, unit)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(problem.hyperparameters)
                loss = problem.inner(weights, problem.hyperparameters)
            found = tape.gradient(loss, problem.hyperparameters)
            sides.append([g if g is None else tf.convert_to_tensor(g) for g in found])
        return [
            a if a is None else tf.cast(size, a.dtype) * (a - b) / (2 * self.epsilon)
            for a, b in zip(*sides, strict=True)
        ]

    def _first_order(self, problem):
        outer_loss, _, direct = problem.outer_gradients()
        pairs = zip(problem.names, direct, strict=True)
        lost = [name for name, gradient in pairs if gradient is None]
        if lost:
            raise ValueError(
                "The first order of DARTS sees only what the outer loss depends on "
                f"directly, and it does not depend on {', '.join(lost)}. Use "
                'second_order="exact".'
            )
        gradients = [tf.convert_to_tensor(g) for g in direct]
        return Hypergradient(gradients, outer_loss, problem.weights, {})

    def get_config(self):
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "second_order": self.second_order,
            "epsilon": self.epsilon,
        }
