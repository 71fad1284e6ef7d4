"""Reverse mode along a straight line."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf.methods.trajectory.momentum_run import MomentumRun
from bilevel_tf.methods.trajectory.trajectory import Reverse
from bilevel_tf.network.problem import Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class DrMAD(Reverse[MomentumRun]):
    """Backpropagation through T steps of SGD, along the line from θ₀ to θ_T.

        θ_t ≈ (1 − t/T) θ₀ + (t/T) θ_T;   v_t ≈ θ_t − θ_{t−1};   v₀ = 0

    Only both ends are stored. The result is exact if training moves in a straight line
    at constant speed; otherwise its error depends on how much the second derivatives
    differ between the line and the path.

    Args:
        steps: T, at least 1.
        restart: In `fit`, start the run of every outer step from the weights that the
            model had when it was compiled, with fresh slots, and leave the model at the
            end of that run. Defaults to `False`: look ahead from the current weights
            and slots, and do not change them.
        fixed_batches: In `fit`, take the same T training batches, in the same order,
            for all outer steps. Defaults to `False`: take fresh ones.
        train_steps: T_train, the number of inner steps in a round. Defaults to 5, as in
            the Δ-STN paper.
        valid_steps: T_valid, the number of outer steps in a round. Defaults to 1, as in
            the Δ-STN paper.
        warmup_epochs: Number of epochs at the start in which hyperparameters stay
            fixed. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range. At the call, if the
            optimizer is not keras.optimizers.SGD, or has Nesterov momentum or weight
            decay of its own.
        TypeError: If there is no argument of that name.
        FloatingPointError: At the call, when running eagerly, if the weights became
            infinite or NaN.

    Reference:
        Fu et al., "DrMAD: distilling reverse-mode automatic differentiation for
        optimizing hyperparameters of deep neural networks", 2016, Alg. 2.

    Example: a constant gradient makes the path straight, so that the result is exact:
    L = h w ends at w = −T · 0.25 h, and Q = w² has the derivative 2 T² · 0.25² h.

    >>> result = bt.hypergradient(
    ...     lambda w, h: h * w,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.0, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.methods.DrMAD(steps=4),
    ...     optimizer=keras.optimizers.SGD(0.25))
    >>> float(result.gradients)
    2.0
    """

    def run(self, problem: Problem) -> MomentumRun:
        """A run of SGD."""
        return MomentumRun(problem, "DrMAD")

    def begin(self, run: MomentumRun) -> Any:
        """The state."""
        return run.start()

    def advance(
        self, run: MomentumRun, t: tf.Tensor, memory: Any
    ) -> tuple[Any, tf.Tensor]:
        """One step."""
        state = run.step(t, memory)
        return state, run.finite(state)

    def current(self, run: MomentumRun, memory: Any) -> list[tf.Tensor]:
        """The state."""
        return memory

    def turn(self, run: MomentumRun, memory: Any) -> Any:
        """Both ends of the line."""
        return run.weights(run.start()), run.weights(memory)

    def recall(
        self, run: MomentumRun, t: tf.Tensor, memory: Any
    ) -> tuple[list[tf.Tensor], Any]:
        """The point of step t on the line."""
        start, end = memory
        weights, velocity = [], []
        for a, b in zip(start, end, strict=True):
            share = tf.cast(t, a.dtype) / self.steps
            weights.append((1 - share) * a + share * b)
            moving = tf.cast(t > 0, a.dtype)
            velocity.append(moving * (b - a) / self.steps)
        return run.state(t, weights, velocity), memory
