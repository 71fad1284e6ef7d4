"""The inner training as a map from state to state, one step at a time."""

import keras
import tensorflow as tf

from bilevel_tf.optimizers.functional import FunctionalOptimizer
from bilevel_tf.optimizers.tuned import TunedOptimizer


class TrainingRun:
    """x_{t+1} = S_t(x_t, λ), where x is the weights and the optimizer's slots.

    A state is one flat list of tensors: weights first. A cotangent is a list for those
    of them that are real numbers: the optimizer also counts its steps.

    Args:
        problem: A `Problem` with an optimizer.

    Attributes:
        problem: The problem.
        resumable: Whether it can start with other slots than fresh ones.
        slots: The optimizer's slots before the first step; the first counts steps.

    Raises:
        ValueError: If it has none, or one that cannot be differentiated.
        TypeError: If it is something else.
    """

    resumable = True

    def __init__(self, problem):
        optimizer = problem.optimizer
        if optimizer is None:
            raise ValueError(
                "This method follows the steps of training and needs an optimizer "
                "that takes them. Give `optimizer`, such as keras.optimizers.SGD(0.1)."
            )
        if not isinstance(optimizer, (keras.optimizers.Optimizer, TunedOptimizer)):
            raise TypeError(
                "`optimizer` must be a Keras optimizer or a "
                f"bilevel_tf.TunedOptimizer. Received: optimizer={optimizer!r}"
            )
        self.problem = problem
        self.keras_optimizer = getattr(optimizer, "optimizer", optimizer)
        self.tuned = getattr(optimizer, "functions", {})
        self._optimizer = FunctionalOptimizer(optimizer, problem.variables)
        resumes = problem.resumes and self.resumable
        optimizer = self._optimizer
        self.slots = optimizer.current_state() if resumes else optimizer.initial_state()
        # `None` as long as it is not known.
        self._reached = [None for _ in problem.hyperparameters]

    def start(self, hyperparameters=None):
        """x₀; of other hyperparameters where the start depends on them."""
        problem = self.problem
        weights = problem.weights
        if problem.start is not None:
            given = hyperparameters or problem.hyperparameters
            weights = [tf.convert_to_tensor(w) for w in problem.start(given)]
        return [*weights, *self.slots]

    def step(self, t, state, hyperparameters=None):
        """S_t(x_t, λ)."""
        problem = self.problem
        h = hyperparameters or problem.hyperparameters
        weights, slots = self.weights(state), state[len(problem.weights) :]
        gradients = problem.inner_gradients(weights, h, t)
        weights, slots = self._optimizer(gradients, weights, slots, problem.packed(h))
        return [*weights, *slots]

    def weights(self, state):
        """The weights of a state."""
        return list(state[: len(self.problem.weights)])

    def finite(self, state):
        """Whether all weights are finite numbers, a boolean scalar."""
        checks = [tf.reduce_all(tf.math.is_finite(w)) for w in self.weights(state)]
        return tf.reduce_all(tf.stack(checks))

    def pull_back(self, t, state, cotangent):
        """(∂S_t/∂x)ᵀ · cotangent, and that with ∂S_t/∂λ, zeros where there is none."""
        return self._transposed(self._step_of(t), state)[1](cotangent)

    def pull_back_start(self, cotangent):
        """(∂x₀/∂λ)ᵀ · cotangent."""
        return self._transposed(self._start_of, [])[1](cotangent)[1]

    def push_forward(self, t, state, tangents, directions):
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
        return self._pushed(self._step_of(t), state, tangents, directions)

    def push_forward_start(self, directions):
        """∂x₀/∂λ · direction for many, stacked as in `push_forward`."""
        return self._pushed(self._start_of, [], [], directions)[1]

    def _step_of(self, t):
        return lambda h, state: self.step(t, state, h)

    def _start_of(self, h, _):
        return self.start(h)

    def _transposed(self, function, state):
        """A function's value, and the function that pulls a cotangent of it back."""
        # New tensors: of one that is read from the surroundings too, that is no source.
        h = [tf.identity(x) for x in self.problem.hyperparameters]
        state = [tf.identity(x) for x in state]
        sources, count = [*real(state), *h], len(real(state))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            value = function(h, state)
            targets = real(value)

        def pull_back(cotangent):
            found = tape.gradient(targets, sources, output_gradients=cotangent)
            # A matter of the graph, the same at every step: loops need not carry it.
            pairs = zip(self._reached, found[count:], strict=True)
            self._reached = [bool(reached) or g is not None for reached, g in pairs]
            found = [
                tf.zeros_like(x) if g is None else tf.convert_to_tensor(g)
                for g, x in zip(found, sources, strict=True)
            ]
            return found[:count], found[count:]

        return value, pull_back

    def _pushed(self, function, state, tangents, directions):
        """A function's value, and the derivatives of it along many directions.

        What pulls back is linear in the cotangent, and pulled back itself it pushes
        forward. A `ForwardAccumulator` does so too, but in one traced function per
        operation, and takes several times as long to trace.
        """
        value, pull_back = self._transposed(function, state)
        cotangent = [tf.zeros_like(x) for x in real(value)]
        # Persistent, because vectorisation may trace more than once.
        tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        with tape:
            tape.watch(cotangent)
            of_state, of_h = pull_back(cotangent)

        def along(direction):
            return tape.gradient(
                [*of_state, *of_h],
                cotangent,
                output_gradients=direction,
                unconnected_gradients="zero",
            )

        return value, tf.vectorized_map(along, [*tangents, *directions])

    def only_reached(self, gathered):
        """`gathered`, with `None` for a λ known not to enter any step or start."""
        pairs = zip(self._reached, gathered, strict=True)
        return [None if reached is False else g for reached, g in pairs]

    def output_cotangent(self, state, cotangent):
        """The cotangent of a state, given that of its weights."""
        slots = real(state[len(self.problem.weights) :])
        return [*cotangent, *(tf.zeros_like(s) for s in slots)]


def real(state):
    """Those tensors of a list that have derivatives."""
    return [x for x in state if x.dtype.is_floating]
