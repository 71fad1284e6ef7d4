"""Reverse mode along a straight line."""

import keras
import tensorflow as tf

from bilevel_tf.methods.trajectory.momentum_run import MomentumRun
from bilevel_tf.methods.trajectory.trajectory import Reverse


@keras.saving.register_keras_serializable("bilevel_tf")
class DrMAD(Reverse):
    """Backpropagation through T steps of SGD, along the line from θ₀ to θ_T.

        θ_t ≈ (1 − t/T) θ₀ + (t/T) θ_T;   v_t ≈ θ_t − θ_{t−1};   v₀ = 0

    Nothing is stored but both ends. Exact if training moves straight on at one speed;
    else as good as the second derivatives are alike on the line and on the path.

    Args:
        steps: T, at least 1.
        **kwargs: See `Method`.

    Raises:
        ValueError: At the call, if the optimizer is not keras.optimizers.SGD, or has
            Nesterov momentum or weight decay of its own.

    Reference:
        Fu et al., "DrMAD: distilling reverse-mode automatic differentiation for
        optimizing hyperparameters of deep neural networks", 2016, Alg. 2.
    """

    def run(self, problem):
        """A run of SGD."""
        return MomentumRun(problem, "DrMAD")

    def begin(self, run):
        """The state."""
        return run.start()

    def advance(self, run, t, memory):
        """One step."""
        state = run.step(t, memory)
        return state, run.finite(state)

    def current(self, run, memory):
        """The state."""
        return memory

    def turn(self, run, memory):
        """Both ends of the line."""
        return run.weights(run.start()), run.weights(memory)

    def recall(self, run, t, memory):
        """The point of step t on the line."""
        start, end = memory
        weights, velocity = [], []
        for a, b in zip(start, end, strict=True):
            share = tf.cast(t, a.dtype) / self.steps
            weights.append((1 - share) * a + share * b)
            moving = tf.cast(t > 0, a.dtype)
            velocity.append(moving * (b - a) / self.steps)
        return run.state(t, weights, velocity), memory
