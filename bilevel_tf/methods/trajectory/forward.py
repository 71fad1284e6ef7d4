"""Forward mode: the derivatives of the weights, carried along with them."""

from typing import Any

import keras
import tensorflow as tf

from bilevel_tf._arguments import check_count
from bilevel_tf.autodiff.noinline import as_separate_graph
from bilevel_tf.methods.method import all_at_once
from bilevel_tf.methods.trajectory.training_run import TrainingRun, real
from bilevel_tf.methods.trajectory.trajectory import (
    Trajectory,
    check_finite,
    report_run,
)
from bilevel_tf.network.network import Network
from bilevel_tf.network.problem import Hypergradient, Problem


@keras.saving.register_keras_serializable("bilevel_tf")
class ForwardMode(Trajectory):
    """Z_{t+1} = ∂S_t/∂x · Z_t + ∂S_t/∂λ, where Z_t = dx_t/dλ.

    S_t is step t of the optimizer, and x is the weights and the optimizer's slots.
    Memory does not depend on the number of steps. Time and memory are those of one run
    per scalar hyperparameter.

    Args:
        steps: T, at least 1. Defaults to 1. It has no effect with `real_time=True`.
        real_time: In `fit`, carry Z along with the training itself, over all steps
            since the start, instead of T steps ahead at every outer step. This is the
            paper's real-time form, which differentiates the whole run so far. Defaults
            to `False`.
        max_entries: Most entries of Z in real time: scalar hyperparameters times
            weights and slots. Defaults to 100 million (400 MB in single precision).
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
        ValueError: If an argument is out of range, or both `restart` and `real_time`
            are true. At `compile`, if Z would have more entries. At the call, if there
            is no optimizer, or its steps cannot be differentiated.
        TypeError: If there is no argument of that name.
        FloatingPointError: At the call, when running eagerly, if the weights became
            infinite or NaN.

    Reference:
        Franceschi et al., "Forward and reverse gradient-based hyperparameter
        optimization", 2017.

    Example: L = (w − 1)² + h w² is least at w = 1 / (1 + h), so that Q = w² has the
    derivative −2 / (1 + h)³.

    >>> result = bt.hypergradient(
    ...     lambda w, h: (w - 1.0) ** 2 + h * w**2,
    ...     lambda w, h: w**2,
    ...     weights=tf.constant(0.0, tf.float64),
    ...     hyperparameters=tf.constant(1.0, tf.float64),
    ...     method=bt.methods.ForwardMode(steps=2),
    ...     optimizer=keras.optimizers.SGD(0.25))
    >>> float(result.gradients)
    -0.25
    """

    def __init__(
        self,
        steps: int = 1,
        real_time: bool = False,
        max_entries: int = 100_000_000,
        **kwargs: Any,
    ):
        super().__init__(steps, **kwargs)
        self.real_time = bool(real_time)
        if self.real_time and self.restart:
            raise ValueError(
                "`restart` must be False with `real_time=True`, which goes on with the "
                "one run that training is. Received: restart=True"
            )
        self.max_entries = check_count(max_entries, "max_entries", 1)
        if real_time:
            self.inner_batches = 0

    def check(self, network: Network) -> None:
        """In real time, check also that Z is that of the weights and not too large."""
        super().check(network)
        if not self.real_time:
            return
        replicas = getattr(network.strategy, "num_replicas_in_sync", 1)
        if replicas > 1:
            raise ValueError(
                "`real_time` must be False under a strategy with several replicas: "
                "each would carry the derivative of a step on its own part of the "
                "batch, and the optimizer takes one on the whole. "
                f"Received: real_time=True with {replicas} replicas"
            )
        if network.objective_optimizer is not None:
            raise ValueError(
                "`real_time` must be False if the objective trains its own variables, "
                f"as {type(network.objective).__name__} does: real time follows the "
                "training of the model's weights. Received: real_time=True"
            )
        size, carried = network.hyperparameters.size, self._carried(network)
        entries = size * sum(x.shape.num_elements() for x in carried)
        if entries > self.max_entries:
            raise ValueError(
                f"Forward mode in real time would carry {entries:,} numbers ({size:,} "
                f"scalar hyperparameters for every weight and slot), more than "
                f"max_entries={self.max_entries:,}. Use bilevel_tf.Unrolled or "
                "bilevel_tf.Neumann, whose memory does not grow with hyperparameters."
            )

    def build(self, network: Network) -> None:
        """In real time, make the variables for Z, once the optimizer is known."""
        if self.real_time and network.compiled:
            size = network.hyperparameters.size
            for i, x in enumerate(self._carried(network)):
                network.add_state(f"tangent_{i}", (size, *x.shape), x.dtype.name)

    def _carried(self, network):
        """The tensors of a state along which Z is carried: weights and slots."""
        return real(self.run(network.problem(None, None)).start())

    def inner_step(
        self, network: Network, x: Any, y: Any, sample_weight: Any
    ) -> tuple[tf.Tensor, Any]:
        """An ordinary step; in real time also Z ← ∂S/∂x · Z + ∂S/∂λ."""
        if not self.real_time:
            return super().inner_step(network, x, y, sample_weight)
        batch = keras.tree.map_structure(
            lambda array: None if array is None else array[None], (x, y, sample_weight)
        )
        run = self.run(network.problem(batch, None))
        state = run.start()
        variables = network.states("tangent", len(real(state)))
        tangents = [tf.convert_to_tensor(z.value) for z in variables]
        # At the weights before the step, with the noise that the step is going to draw.
        _, tangents = self.advance(run, 0, state, tangents)
        tangents = all_at_once(tangents)
        with tf.control_dependencies(tangents):
            results = super().inner_step(network, x, y, sample_weight)
        for variable, value in zip(variables, tangents, strict=True):
            variable.assign(value)
        return results

    def outer_step(
        self, network: Network, validation: tuple, training: tuple | None
    ) -> dict[str, tf.Tensor]:
        """λ ← a step along dQ/dλ; in real time with the Z that is there."""
        if not self.real_time:
            return super().outer_step(network, validation, training)
        run = self.run(network.problem(None, validation))
        state = run.start()
        variables = network.states("tangent", len(real(state)))
        tangents = [tf.convert_to_tensor(z.value) for z in variables]
        return self.descend(network, self.read(run, state, tangents))

    def initial_tangents(self, run: TrainingRun) -> list[tf.Tensor]:
        """Z₀, zeros unless the start depends on λ.

        Returns:
            A list for the real tensors of a state, each with one more axis in front,
            along which the scalar hyperparameters are counted.
        """
        start = run.start()
        if run.problem.start is None:
            size = sum(_list_sizes(run.problem.hyperparameters))
            return [tf.zeros([size, *x.shape], x.dtype) for x in real(start)]
        return run.push_forward_start(_make_directions(run.problem.hyperparameters))

    def advance(
        self,
        run: TrainingRun,
        t: int | tf.Tensor,
        state: list[tf.Tensor],
        tangents: list[tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """x_{t+1} and Z_{t+1}, given those of step t."""
        directions = _make_directions(run.problem.hyperparameters)
        return run.push_forward(t, state, tangents, directions)

    def read(
        self, run: TrainingRun, state: list[tf.Tensor], tangents: list[tf.Tensor]
    ) -> Hypergradient:
        """∂Q/∂w · Z + ∂Q/∂λ at a state.

        The report's "iterations" are the steps that the optimizer has counted, and its
        "first_bad_step" is the last step if the weights are not finite.
        """
        problem = run.problem
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
        steps = tf.cast(state[len(weights)], tf.int32)
        report = report_run(steps, tf.where(run.finite(state), -1, steps - 1))
        return Hypergradient(gradients, outer_loss, weights, report)

    def hypergradient(self, problem: Problem) -> Hypergradient:
        """dQ/dλ after T steps from the weights of the problem."""
        run = self.run(problem)
        state, tangents = run.start(), self.initial_tangents(run)

        # Also eagerly: vectorisation traces a graph at every call, and once is enough.
        @as_separate_graph
        def advance(t, state, tangents):
            return self.advance(run, t, state, tangents)

        def body(t, state, tangents, bad):
            state, tangents = advance(t, state, tangents)
            bad = tf.where((bad < 0) & ~run.finite(state), t, bad)
            return t + 1, state, tangents, bad

        start = tf.constant(0), state, tangents, tf.constant(-1)
        # Otherwise up to ten steps begin before the check of the first one has been
        # made, and all their states and tangents are kept for it.
        loop = tf.while_loop(
            lambda t, *_: t < self.steps, body, start, parallel_iterations=1
        )
        _, state, tangents, bad = loop
        check_finite(bad)
        found = self.read(run, state, tangents)
        return found._replace(report=report_run(self.steps, bad))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "real_time": self.real_time,
            "max_entries": self.max_entries,
        }


def _make_directions(hyperparameters):
    """One direction per scalar in λ: a list for λ, each with one more axis in front."""
    sizes = _list_sizes(hyperparameters)
    parts = tf.split(tf.eye(sum(sizes), dtype=tf.float64), sizes, axis=1)
    return [
        tf.cast(tf.reshape(p, [sum(sizes), *h.shape]), h.dtype)
        for p, h in zip(parts, hyperparameters, strict=True)
    ]


def _split(vector, hyperparameters):
    sizes = _list_sizes(hyperparameters)
    parts = tf.split(vector, sizes)
    return [
        tf.cast(tf.reshape(p, h.shape), h.dtype)
        for p, h in zip(parts, hyperparameters, strict=True)
    ]


def _list_sizes(hyperparameters):
    return [h.shape.num_elements() for h in hyperparameters]
