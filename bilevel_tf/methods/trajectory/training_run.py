"""The inner training as a map from state to state, one step at a time."""

import keras
import tensorflow as tf

from bilevel_tf.autodiff.gradients import dense_gradients
from bilevel_tf.autodiff.vectors import all_finite
from bilevel_tf.network.problem import Problem
from bilevel_tf.optimizers.functional import FunctionalOptimizer
from bilevel_tf.optimizers.tuned import TunedOptimizer


class TrainingRun:
    """x_{t+1} = S_t(x_t, λ), where x is the weights and the optimizer's slots.

    A state is one flat list of tensors, weights first. A cotangent is a list for the
    tensors of a state that hold real numbers; the optimizer's count of its steps is an
    integer.

    Args:
        problem: A `Problem` with an optimizer.

    Attributes:
        problem: The problem.
        keras_optimizer: The Keras optimizer.
        tuned: Functions of λ by the name of the setting, if it is a `TunedOptimizer`.
        resumable: Whether a run can start with the optimizer's current slots.
        slots: The optimizer's slots before the first step; the first counts steps.

    Raises:
        ValueError: If the problem has no optimizer, or one whose steps cannot be
            differentiated.
        TypeError: If the optimizer is not an optimizer.
    """

    resumable = True

    def __init__(self, problem: Problem):
        optimizer = problem.optimizer
        if optimizer is None:
            raise ValueError(
                "This method follows the steps of training and needs an optimizer "
                "that takes them. Give `optimizer`, such as keras.optimizers.SGD(0.1). "
                "Received: optimizer=None"
            )
        if not isinstance(optimizer, (keras.optimizers.Optimizer, TunedOptimizer)):
            raise TypeError(
                "`optimizer` must be a Keras optimizer or a "
                f"bilevel_tf.TunedOptimizer. Received: optimizer={optimizer!r}"
            )
        self.problem = problem
        self.keras_optimizer: keras.optimizers.Optimizer = getattr(
            optimizer, "optimizer", optimizer
        )
        self.tuned = getattr(optimizer, "functions", {})
        self._optimizer = FunctionalOptimizer(optimizer, problem.variables)
        resumes = problem.resumes and self.resumable
        optimizer = self._optimizer
        self.slots = optimizer.current_state() if resumes else optimizer.initial_state()
        # Whether each λ enters any step or start; `None` if that is not known yet.
        self._reached: list[bool | None] = [None for _ in problem.hyperparameters]

    def start(self, hyperparameters: list[tf.Tensor] | None = None) -> list[tf.Tensor]:
        """x₀.

        Args:
            hyperparameters: λ. Defaults to those of the problem.
        """
        problem = self.problem
        weights = problem.weights
        if problem.start is not None:
            given = hyperparameters or problem.hyperparameters
            weights = [tf.convert_to_tensor(w) for w in problem.start(given)]
        return [*weights, *self.slots]

    def step(
        self,
        t: int | tf.Tensor,
        state: list[tf.Tensor],
        hyperparameters: list[tf.Tensor] | None = None,
    ) -> list[tf.Tensor]:
        """S_t(x_t, λ).

        Args:
            t: The number of the step.
            state: x_t.
            hyperparameters: λ. Defaults to those of the problem.
        """
        problem = self.problem
        h = hyperparameters or problem.hyperparameters
        weights, slots = self.weights(state), state[len(problem.weights) :]
        gradients = problem.inner_gradients(weights, h, t)
        weights, slots = self._optimizer(gradients, weights, slots, problem.packed(h))
        return [*weights, *slots]

    def weights(self, state: list[tf.Tensor]) -> list[tf.Tensor]:
        """The weights of a state."""
        return list(state[: len(self.problem.weights)])

    def finite(self, state: list[tf.Tensor]) -> tf.Tensor:
        """Whether all weights are finite numbers, a boolean scalar."""
        return all_finite(self.weights(state))

    def pull_back(
        self, t: int | tf.Tensor, state: list[tf.Tensor], cotangent: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """(∂S_t/∂x)ᵀ · cotangent and (∂S_t/∂λ)ᵀ · cotangent, zeros if there is none."""
        return self._transpose(self._step_of(t), state)[1](cotangent)

    def pull_back_start(self, cotangent: list[tf.Tensor]) -> list[tf.Tensor]:
        """(∂x₀/∂λ)ᵀ · cotangent."""
        return self._transpose(self._start_of, [])[1](cotangent)[1]

    def push_forward(
        self,
        t: int | tf.Tensor,
        state: list[tf.Tensor],
        tangents: list[tf.Tensor],
        directions: list[tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """x_{t+1}, and ∂S_t/∂x · tangent + ∂S_t/∂λ · direction for many of them.

        Args:
            t: The number of the step.
            state: x_t.
            tangents: List for the real tensors of x_t, each with one more axis in
                front, along which the pairs are counted.
            directions: Likewise for λ.

        Returns:
            The state, and a list of its tangents, stacked likewise.
        """
        return self._push(self._step_of(t), state, tangents, directions)

    def push_forward_start(self, directions: list[tf.Tensor]) -> list[tf.Tensor]:
        """∂x₀/∂λ · direction for many, stacked as in `push_forward`."""
        return self._push(self._start_of, [], [], directions)[1]

    def _step_of(self, t):
        return lambda h, state: self.step(t, state, h)

    def _start_of(self, h, _):
        return self.start(h)

    def _transpose(self, function, state):
        """Find a function's value, and the function that pulls a cotangent back."""
        # Copy, so that a tensor also captured by a closure is not treated as a source.
        h = [tf.identity(x) for x in self.problem.hyperparameters]
        state = [tf.identity(x) for x in state]
        sources, count = [*real(state), *h], len(real(state))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            value = function(h, state)
            targets = real(value)

        def pull_back(cotangent):
            found = dense_gradients(tape, targets, sources, output_gradients=cotangent)
            # The graph decides this, the same at every step; loops need not carry it.
            pairs = zip(self._reached, found[count:], strict=True)
            self._reached = [bool(reached) or g is not None for reached, g in pairs]
            found = [
                tf.zeros_like(x) if g is None else g
                for g, x in zip(found, sources, strict=True)
            ]
            return found[:count], found[count:]

        return value, pull_back

    def _push(self, function, state, tangents, directions):
        """Find a function's value, and its derivatives along many directions.

        The pull-back is linear in the cotangent; its own pull-back pushes forward. A
        `ForwardAccumulator` pushes forward too, but traces one function per operation
        and takes several times as long to trace.
        """
        value, pull_back = self._transpose(function, state)
        cotangent = [tf.zeros_like(x) for x in real(value)]
        # Persistent, because vectorisation may trace more than once.
        tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        with tape:
            tape.watch(cotangent)
            of_state, of_h = pull_back(cotangent)

        def along(direction):
            return dense_gradients(
                tape,
                [*of_state, *of_h],
                cotangent,
                output_gradients=direction,
                unconnected_gradients="zero",
            )

        return value, tf.vectorized_map(along, [*tangents, *directions])

    def only_reached(self, gathered: list[tf.Tensor]) -> list[tf.Tensor | None]:
        """`gathered`, with `None` for a λ known not to enter any step or start."""
        pairs = zip(self._reached, gathered, strict=True)
        return [None if reached is False else g for reached, g in pairs]

    def output_cotangent(
        self, state: list[tf.Tensor], cotangent: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """The cotangent of a state, given that of its weights."""
        slots = real(state[len(self.problem.weights) :])
        return [*cotangent, *(tf.zeros_like(s) for s in slots)]


def real(state: list[tf.Tensor]) -> list[tf.Tensor]:
    """The tensors of a list that hold real numbers, and so have derivatives."""
    return [x for x in state if x.dtype.is_floating]
