"""What the methods share that differentiate the steps of a training run."""

from typing import Any, Generic, TypeVar

import tensorflow as tf

from bilevel_tf._arguments import check_count
from bilevel_tf.autodiff.noinline import as_separate_graph
from bilevel_tf.autodiff.solution import Status, choose_status
from bilevel_tf.methods.differentiating import Differentiating
from bilevel_tf.methods.trajectory.training_run import TrainingRun
from bilevel_tf.network.problem import Hypergradient, Problem, make_report
from bilevel_tf.optimizers.first_step import first_step_forgets_gradient

# The kind of run that a method of reverse mode makes and reads.
Run = TypeVar("Run", bound=TrainingRun)


class Trajectory(Differentiating):
    """dQ(θ_T(λ), λ)/dλ, where θ_T is the weights after T optimizer steps.

    Nothing differentiates a loop: one loop takes the steps, and the derivatives are
    carried through single steps, by the same loop or by a second one.

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
        ValueError: If an argument is out of range. At the call, if there is no
            optimizer, or its steps cannot be differentiated.
        TypeError: If there is no argument of that name.
        FloatingPointError: At the call, when running eagerly, if the weights became
            infinite or NaN.
    """

    needs_optimizer = True

    def __init__(
        self,
        steps: int,
        restart: bool = False,
        fixed_batches: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.steps = check_count(steps, "steps", 1)
        self.restart = bool(restart)
        self.fixed_batches = bool(fixed_batches)
        self.inner_batches = self.steps

    def check(self, network):
        """Check also that the steps of the optimizer can be differentiated.

        Raises:
            ValueError: If they cannot.
        """
        super().check(network)
        run = self.run(network.problem(None, None))
        single = self.restart and self.steps == 1
        if single and first_step_forgets_gradient(run.keras_optimizer):
            raise ValueError(
                "The first step of "
                f"{type(run.keras_optimizer).__name__} from fresh slots goes along the "
                "sign of the gradient, so that every hypergradient of a run of one "
                "step would be 0. Take more steps, set restart=False, or use "
                "keras.optimizers.SGD. Received: restart=True and one step"
            )

    def build(self, network):
        """With `restart`, keep the weights from which every run starts."""
        if self.restart:
            variables = network.objective.variables(network)
            self._assign(network.add_states("start", variables), variables)

    def gradients_of_step(self, gradients):
        """Dense gradients, of which the steps that are differentiated are made.

        Adam and others of Keras square a sparse gradient before they add what belongs
        to one row, so that their step would be another one.
        """
        return [g if g is None else tf.convert_to_tensor(g) for g in gradients]

    def outer_step(self, network, validation, training):
        """λ ← a step along dQ/dλ; with `restart` also w ← θ_T."""
        if not self.restart:
            return super().outer_step(network, validation, training)
        problem = network.problem(training, validation)
        start = network.states("start", len(problem.weights))
        problem.weights = [tf.convert_to_tensor(v) for v in start]
        problem.resumes = False
        found = self.hypergradient(problem)
        logs = self.descend(network, found)
        self._assign(network.objective.variables(network), found.weights)
        return logs

    @staticmethod
    def _assign(variables, values):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def run(self, problem: Problem) -> TrainingRun:
        """A `TrainingRun` of the problem."""
        return TrainingRun(problem)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "steps": self.steps,
            "restart": self.restart,
            "fixed_batches": self.fixed_batches,
        }


class Reverse(Trajectory, Generic[Run]):
    """Reverse mode: from the last step to the first, the cotangents of the states.

        x̄_T = ∂Q/∂x_T;   x̄_t = (∂S_t/∂x)ᵀ x̄_{t+1};   λ̄ += (∂S_t/∂λ)ᵀ x̄_{t+1}

    The methods differ in where they find the states x_t on the way back. A subclass
    says what it keeps of the run in its memory (`begin`, `advance`, `current`), and how
    it finds the states again, from the last to the first (`recall`). A memory is a
    structure of tensors and `TensorArray`s.

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
        ValueError: If an argument is out of range. At the call, if there is no
            optimizer, or its steps cannot be differentiated.
        TypeError: If there is no argument of that name.
        FloatingPointError: At the call, when running eagerly, if the weights became
            infinite or NaN.
    """

    first = 0

    def begin(self, run: Run) -> Any:
        """The memory before the first step of a `TrainingRun`."""
        raise NotImplementedError

    def advance(self, run: Run, t: tf.Tensor, memory: Any) -> tuple[Any, tf.Tensor]:
        """The memory after step t, and whether that was finite, a boolean scalar."""
        raise NotImplementedError

    def current(self, run: Run, memory: Any) -> list[tf.Tensor]:
        """The state at the end of all steps."""
        raise NotImplementedError

    def turn(self, run: Run, memory: Any) -> Any:
        """The memory that the way back starts with."""
        return memory

    def recall(
        self, run: Run, t: tf.Tensor, memory: Any
    ) -> tuple[list[tf.Tensor], Any]:
        """x_t, and the memory that is left for the states before it."""
        raise NotImplementedError

    def more(self, run: Run, memory: Any) -> dict[str, tf.Tensor]:
        """Further entries of the report, given the memory after the way back."""
        return {}

    def hypergradient(self, problem: Problem) -> Hypergradient:
        """dQ/dλ after T steps from the weights of the problem."""
        # A `Run`: a subclass that needs more than a `TrainingRun` overrides `run`.
        run: Any = self.run(problem)
        memory, bad = self._forward(run)
        check_finite(bad)
        end = self.current(run, memory)
        weights = run.weights(end)
        outer_loss, cotangent, direct = problem.outer_gradients(weights)
        cotangent = run.output_cotangent(end, cotangent)
        cotangent, gathered, memory = self._backward(run, memory, cotangent)
        if problem.start is not None:
            gathered = _add(gathered, run.pull_back_start(cotangent))
        gradients = problem.total(direct, run.only_reached(gathered))
        report = report_run(self.steps, bad, **self.more(run, memory))
        return Hypergradient(gradients, outer_loss, weights, report)

    def _forward(self, run):
        def body(t, memory, bad):
            memory, finite = self.advance(run, t, memory)
            return t + 1, memory, tf.where((bad < 0) & ~finite, t, bad)

        start = tf.constant(0), self.begin(run), tf.constant(-1)
        return tf.while_loop(lambda t, *_: t < self.steps, body, start)[1:]

    def _backward(self, run, memory, cotangent):
        eager = tf.executing_eagerly()
        pull_back = run.pull_back if eager else as_separate_graph(run.pull_back)

        def body(t, memory, cotangent, gathered):
            state, memory = self.recall(run, t, memory)
            cotangent, found = pull_back(t, state, cotangent)
            return t - 1, memory, cotangent, _add(gathered, found)

        zeros = [tf.zeros_like(h) for h in run.problem.hyperparameters]
        start = tf.constant(self.steps - 1), self.turn(run, memory), cotangent, zeros
        loop = tf.while_loop(lambda t, *_: t >= self.first, body, start)
        _, memory, cotangent, gathered = loop
        return cotangent, gathered, memory


def report_run(
    steps: int | tf.Tensor, bad: tf.Tensor, **extras: tf.Tensor
) -> dict[str, tf.Tensor]:
    """The report of a run.

    Args:
        steps: How many steps were taken.
        bad: The number of the first step after which the weights were not finite, or
            −1.
        **extras: Further entries, such as whether the start was "recovered".
    """
    status = choose_status(
        (bad >= 0, Status.NOT_FINITE),
        (tf.logical_not(extras.get("recovered", True)), Status.NOT_RECOVERED),
    )
    return make_report(status, steps, first_bad_step=bad, **extras)


def check_finite(bad: tf.Tensor) -> None:
    """Raise a `FloatingPointError` that names the step; eagerly only."""
    if tf.executing_eagerly() and bad >= 0:
        raise FloatingPointError(
            f"The weights became infinite or NaN in step {int(bad)} of training. "
            "A smaller learning rate, gradient clipping, or other hyperparameters "
            "keep them finite."
        )


def _add(a, b):
    return [x + y for x, y in zip(a, b, strict=True)]
