"""Reverse mode with the training run backwards."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count
from bilevel_tf.autodiff import tensor_lists as states
from bilevel_tf.autodiff.exact_decay import ExactDecay
from bilevel_tf.autodiff.noinline import as_separate_graph
from bilevel_tf.methods.trajectory.momentum_run import MomentumRun
from bilevel_tf.methods.trajectory.trajectory import Reverse
from bilevel_tf.network.problem import Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class RMAD(Reverse["ReversibleRun"]):
    """Backpropagation through T steps of SGD with momentum, which is run backwards.

    Weights and velocities are whole numbers, of 2^−fraction_bits each:

        there:  v ← γv − αg(w);  w ← w + v
        back:   w ← w − v;  v ← (v + αg(w)) / γ

    Only γv loses bits: log₂(1/γ) of each number in each step, and only these bits are
    stored. The way back meets the same states bit for bit. Learning rate and momentum
    are those of the problem's optimizer, keras.optimizers.SGD.

    The report also has "recovered": whether the way back ended where training started.
    If not, the hypergradient is wrong, and the status is NOT_RECOVERED.

    Args:
        steps: T, at least 1.
        fraction_bits: Number of bits after the binary point, from 16 to 52. Defaults to
            40, which resolves 1e-12 and allows numbers up to 2 million.
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
        ValueError: If an argument is out of range. At the call, if the optimizer is
            not plain SGD with momentum, or its momentum is not a fraction with a
            denominator of at most 1,000.
        TypeError: If there is no argument of that name.
        FloatingPointError: At the call, when running eagerly, if the weights became
            infinite, NaN or too large.

    Reference:
        Maclaurin, Duvenaud & Adams, "Gradient-based hyperparameter optimization
        through reversible learning", 2015, Alg. 2 and 3.

    Example: two steps with momentum ½ on L = h w end at w = −0.25 h (1 + 1½), so that
    Q = w has the derivative −0.625.

    >>> result = bt.hypergradient(
    ...     lambda w, h: h * w,
    ...     lambda w, h: w,
    ...     weights=tf.constant(0.0, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.methods.RMAD(steps=2),
    ...     optimizer=keras.optimizers.SGD(0.25, momentum=0.5))
    >>> float(result.gradients), bool(result.report["recovered"])
    (-0.625, True)
    """

    def __init__(self, steps: int, fraction_bits: int = 40, **kwargs: Any):
        super().__init__(steps, **kwargs)
        if check_count(fraction_bits, "fraction_bits", 16) > 52:
            raise ValueError(
                "`fraction_bits` must be at most 52, those of a float64. "
                f"Received: fraction_bits={fraction_bits}"
            )
        self.fraction_bits = fraction_bits

    def run(self, problem: Problem) -> "ReversibleRun":
        """A run of SGD with momentum."""
        return ReversibleRun(problem, self.fraction_bits)

    def begin(self, run: "ReversibleRun") -> Any:
        """w, v and the buffer as integers, and a store for the full buffers."""
        weights = run.whole(run.weights(run.start()))
        rest = [tf.zeros_like(w) for w in weights]
        periods = -(-self.steps // self._period(run))
        return weights, rest, rest, states.empty(rest, periods)

    def _period(self, run):
        return min(run.decay.period or self.steps, self.steps)

    def advance(
        self, run: "ReversibleRun", t: tf.Tensor, memory: Any
    ) -> tuple[Any, tf.Tensor]:
        """v ← γv − αg(w); w ← w + v; empty the buffer after each period."""
        weights, velocity, buffer, kept = memory
        period = self._period(run)
        buffer = _where(tf.equal(t % period, 0), _zeros(buffer), buffer)
        moves, finite = run.moves(t, weights)
        decayed, buffer = _each(run.decay.apply, velocity, buffer)
        velocity = [v + m for v, m in zip(decayed, moves, strict=True)]
        weights = [w + v for w, v in zip(weights, velocity, strict=True)]
        # Written in every step, so that the buffer that stays is the full one.
        kept = states.write(kept, t // period, buffer)
        return (weights, velocity, buffer, kept), finite & run.within(weights)

    def recall(
        self, run: "ReversibleRun", t: tf.Tensor, memory: Any
    ) -> tuple[list[tf.Tensor], Any]:
        """w ← w − v; v ← (v + αg(w)) / γ."""
        weights, velocity, buffer, kept = memory
        period = self._period(run)
        full = tf.equal((t + 1) % period, 0)
        buffer = _where(full, states.read(kept, t // period), buffer)
        weights = [w - v for w, v in zip(weights, velocity, strict=True)]
        moves, _ = run.moves(t, weights)
        velocity = [v - m for v, m in zip(velocity, moves, strict=True)]
        velocity, buffer = _each(run.decay.undo, velocity, buffer)
        state = run.state(t, run.floats(weights), run.floats(velocity))
        return state, (weights, velocity, buffer, kept)

    def current(self, run: "ReversibleRun", memory: Any) -> list[tf.Tensor]:
        """The last state."""
        weights, velocity, *_ = memory
        return run.state(self.steps, run.floats(weights), run.floats(velocity))

    def more(self, run: "ReversibleRun", memory: Any) -> dict[str, tf.Tensor]:
        """Whether weights, velocities and buffers are those of the start."""
        pairs = zip(self.begin(run)[:3], memory[:3], strict=True)
        same = [
            tf.reduce_all(tf.equal(a, b))
            for start, end in pairs
            for a, b in zip(start, end, strict=True)
        ]
        return {"recovered": tf.reduce_all(tf.stack(same))}

    def get_config(self) -> dict:
        return {**super().get_config(), "fraction_bits": self.fraction_bits}


class ReversibleRun(MomentumRun):
    """A `MomentumRun` in whole numbers.

    Args:
        problem: A `Problem`.
        fraction_bits: Bits after the binary point.

    Attributes:
        decay: The momentum, an `ExactDecay`.
    """

    def __init__(self, problem: Problem, fraction_bits: int):
        super().__init__(problem, "RMAD")
        momentum = self.keras_optimizer.momentum
        if "momentum" in self.tuned or not momentum:
            raise ValueError(
                "RMAD runs SGD backwards and needs a constant momentum above 0. Use "
                "bilevel_tf.Unrolled for others. Received: an optimizer with "
                + ("tuned momentum" if "momentum" in self.tuned else "momentum=0")
            )
        try:
            self.decay = ExactDecay.from_factor(momentum)
        except ValueError as error:
            raise ValueError(
                f"RMAD cannot undo this momentum exactly. {error}"
            ) from error
        self._unit = 2.0**fraction_bits
        self._limit = 2 ** (61 - fraction_bits)
        self._increment = self._compile_apart(self.increment)

    def whole(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Floats as integers, rounded."""
        return [
            tf.cast(tf.round(tf.cast(x, tf.float64) * self._unit), tf.int64)
            for x in tensors
        ]

    def floats(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Integers as floats."""
        pairs = zip(tensors, self.problem.weights, strict=True)
        return [tf.cast(tf.cast(x, tf.float64) / self._unit, w.dtype) for x, w in pairs]

    def moves(
        self, t: tf.Tensor, weights: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """−αg(w) as integers, and whether all are finite."""
        moves = self._increment(t, self.floats(weights))
        fits = [tf.reduce_all(tf.abs(m) < tf.cast(self._limit, m.dtype)) for m in moves]
        return self.whole(moves), tf.reduce_all(tf.stack(fits))

    def within(self, weights: list[tf.Tensor]) -> tf.Tensor:
        """Whether all integers are below 2⁶¹, far enough from overflow."""
        limit = tf.constant(2**61, tf.int64)
        return tf.reduce_all(
            tf.stack([tf.reduce_all(tf.abs(w) < limit) for w in weights])
        )

    def _compile_apart(self, function):
        """Compile `function` apart from the operations around it.

        The way back must get the same bits as the way there, and a compiler that sees
        two different loops fuses and rounds differently. TensorFlow does not optimize
        across a function that it must not inline. XLA inlines all functions, but it
        does not unroll a loop of unknown length, and does not move operations out of it
        that depend on what changes in it.
        """
        if tf.executing_eagerly():
            return function
        weights = self.problem.weights
        function = as_separate_graph(function).get_concrete_function(
            tf.TensorSpec([], tf.int32),
            [tf.TensorSpec(w.shape, w.dtype) for w in weights],
        )

        def once(t, weights):
            def body(i, x):
                return i + 1, function(t, x)

            length = tf.minimum(t + 1, 1)
            return tf.while_loop(lambda i, _: i < length, body, (0, weights))[1]

        return once


def _each(function, *lists):
    pairs = [function(*items) for items in zip(*lists, strict=True)]
    return [list(result) for result in zip(*pairs, strict=True)]


def _zeros(tensors):
    return [tf.zeros_like(x) for x in tensors]


def _where(condition, a, b):
    return [tf.where(condition, x, y) for x, y in zip(a, b, strict=True)]
