"""What the methods share that know stochastic gradient descent from inside."""

import keras
import tensorflow as tf

from bilevel_tf.methods.trajectory.training_run import TrainingRun
from bilevel_tf.network.problem import Problem


class MomentumRun(TrainingRun):
    """A `TrainingRun` with v ← γv − αg, w ← w + v: Keras's SGD.

    The learning rate may be a schedule, or tuned; gradients may be clipped. The run
    starts with velocity 0.

    Args:
        problem: A `Problem`.
        name: Name of the method, for errors.

    Raises:
        ValueError: If the optimizer does anything else.
    """

    resumable = False

    def __init__(self, problem: Problem, name: str):
        super().__init__(problem)
        optimizer = self.keras_optimizer
        if not isinstance(optimizer, keras.optimizers.SGD):
            raise ValueError(
                f"{name} knows the steps of keras.optimizers.SGD only. Use that, or "
                "bilevel_tf.Unrolled, which takes any optimizer. "
                f"Received: optimizer={optimizer!r}"
            )
        if optimizer.nesterov:
            raise ValueError(
                f"{name} takes plain momentum only; set nesterov=False. "
                "Received: an optimizer with nesterov=True"
            )
        if optimizer.weight_decay is not None or "weight_decay" in self.tuned:
            raise ValueError(
                f"{name} takes SGD without weight decay of its own. Put the decay into "
                "the inner loss, where it can be tuned. Received: an optimizer with "
                f"weight_decay={optimizer.weight_decay!r}"
            )

    def state(
        self, t: tf.Tensor, weights: list[tf.Tensor], velocity: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """The state before step t with these weights and velocities."""
        steps, *momentum = self.slots
        steps += tf.cast(t, steps.dtype)
        # Without momentum there are no velocities to keep.
        return [*weights, steps, *(velocity if momentum else [])]

    def increment(self, t: tf.Tensor, weights: list[tf.Tensor]) -> list[tf.Tensor]:
        """−αg, a list: the velocity after step t from rest, for SGD with momentum."""
        rest = [tf.zeros_like(w) for w in weights]
        return self.step(t, self.state(t, weights, rest))[len(weights) + 1 :]
