"""Forward mode: the derivatives of the weights, carried along with them."""

import keras
import tensorflow as tf

from bilevel_tf.hypergradients.problem import Hypergradient
from bilevel_tf.hypergradients.training_run import TrainingRun, real
from bilevel_tf.hypergradients.trajectory import Trajectory, check_finite


@keras.saving.register_keras_serializable("bilevel_tf")
class ForwardMode(Trajectory):
    """Z_{t+1} = ∂S_t/∂x · Z_t + ∂S_t/∂λ, where Z_t = dx_t/dλ.

    Memory does not depend on the number of steps; time and memory are those of as many
    runs as there are scalar hyperparameters. For real-time use, Z can be kept between
    outer steps: `initial_tangents`, `advance` and `read` are the parts of
    `hypergradient`.

    Args:
        steps: T, at least 1.
        **kwargs: See `Method`.

    Reference:
        Franceschi et al., "Forward and reverse gradient-based hyperparameter
        optimization", 2017.
    """

    def initial_tangents(self, run):
        """Z₀, a list for the real tensors of a state, each with one more axis in front.

        Zeros where the start does not depend on λ.
        """
        start = run.start()
        if run.problem.start is None:
            size = sum(_sizes(run.problem.hyperparameters))
            return [tf.zeros([size, *x.shape], x.dtype) for x in real(start)]
        return _tangents(lambda h, _: run.start(h), run, [], [])

    def advance(self, run, t, state, tangents):
        """x_{t+1} and Z_{t+1}, given those of step t."""
        following = run.step(t, state)
        tangents = _tangents(lambda h, x: run.step(t, x, h), run, state, tangents)
        return following, tangents

    def read(self, run, state, tangents):
        """The `Hypergradient` ∂Q/∂w · Z + ∂Q/∂λ at a state."""
        problem = run.problem
        run.mark_reached()
        weights = run.weights(state)
        outer_loss, cotangent, direct = problem.outer_gradients(weights)
        total = tf.add_n(
            [
                tf.reduce_sum(z * c, axis=list(range(1, z.shape.rank)))
                for z, c in zip(tangents[: len(weights)], cotangent, strict=True)
            ]
        )
        indirect = run.only_reached(_split(total, problem.hyperparameters))
        gradients = problem.total(direct, indirect)
        return Hypergradient(gradients, outer_loss, weights, {})

    def hypergradient(self, problem):
        """dQ/dλ after T steps from the weights of the problem."""
        run = TrainingRun(problem)
        state, tangents = run.start(), self.initial_tangents(run)

        def advance(t, state, tangents):
            return self.advance(run, t, state, tangents)

        # Vectorisation traces a graph at every call; once is enough.
        advance = tf.function(advance) if tf.executing_eagerly() else advance

        def body(t, state, tangents, bad):
            state, tangents = advance(t, state, tangents)
            bad = tf.where((bad < 0) & ~run.finite(state), t, bad)
            return t + 1, state, tangents, bad

        start = tf.constant(0), state, tangents, tf.constant(-1)
        loop = tf.while_loop(lambda t, *_: t < self.steps, body, start)
        _, state, tangents, bad = loop
        check_finite(bad)
        found = self.read(run, state, tangents)
        report = {"steps": tf.constant(self.steps), "first_bad_step": bad}
        return found._replace(report=report)


def _tangents(function, run, state, tangents):
    """Tangents of a state that is a function of λ and a state, in all directions."""
    h = [tf.identity(x) for x in run.problem.hyperparameters]
    state = [tf.identity(x) for x in state]

    def along(direction):
        sources = [*h, *real(state)]
        with tf.autodiff.ForwardAccumulator(sources, direction) as accumulator:
            following = real(function(h, state))
        return accumulator.jvp(following, unconnected_gradients="zero")

    return tf.vectorized_map(along, [*_directions(h), *tangents])


def _directions(hyperparameters):
    """One direction per scalar in λ: a list for λ, each with one more axis in front."""
    sizes = _sizes(hyperparameters)
    parts = tf.split(tf.eye(sum(sizes), dtype=tf.float64), sizes, axis=1)
    return [
        tf.cast(tf.reshape(p, [sum(sizes), *h.shape]), h.dtype)
        for p, h in zip(parts, hyperparameters, strict=True)
    ]


def _split(vector, hyperparameters):
    sizes = _sizes(hyperparameters)
    parts = tf.split(vector, sizes)
    return [
        tf.cast(tf.reshape(p, h.shape), h.dtype)
        for p, h in zip(parts, hyperparameters, strict=True)
    ]


def _sizes(hyperparameters):
    return [h.shape.num_elements() for h in hyperparameters]
