"""Search that gives few epochs to many trials, and more to the best of them."""

import math
from collections.abc import Sequence
from typing import Any

from bilevel_tf._arguments import check_count
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.search import keras_tuner_oracles
from bilevel_tf.search.plan import History, Plan, Turn
from bilevel_tf.search.ranges import Range, find_ranges
from bilevel_tf.search.search import Search
from bilevel_tf.search.trial import Proposal


class Hyperband(Search):
    """Trains many trials for few epochs, and goes on with the best of them.

    A bracket begins with trials at random. After a few epochs the best 1 / `factor` of
    them are trained `factor` times as long, and so on, until the last ones have had all
    `epochs` of `run`. Brackets differ in how few epochs they begin with. The sizes are
    KerasTuner's, which must be installed.

    A trial that is gone on with is a trial of its own in the result, with the weights,
    the state of the optimizer and the random generators of its `parent`; only its
    further steps count. The data are shuffled anew then. The best trial is taken
    among those that had all epochs.

    Args:
        factor: How many trials compete for one place in the next round. Defaults to 3,
            as in the paper.
        iterations: Number of runs through all brackets. Defaults to 1.
        budget_steps: Number of training steps of all trials together; a trial that
            would exceed it is not begun, and the search ends there. Defaults to
            `None`: no limit.
        ranges: Dict from names to (low, high), as for `RandomSearch`. Defaults to
            `None`: the range of each scale.

    Raises:
        ValueError: If a number is not whole or too small.
        ImportError: At `run`, if KerasTuner is not installed.

    Example:

    >>> def build():
    ...     hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    ...     inputs = keras.Input((3,))
    ...     outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    ...     model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    ...     model.compile("sgd", loss="mse")
    ...     return model
    >>> x, y = np.random.default_rng(0).normal(size=(2, 20, 3))
    >>> result = bt.search.Hyperband(factor=2).run(
    ...     build,
    ...     x[:10],
    ...     y[:10, :1],
    ...     validation_data=(x[10:], y[10:, :1]),
    ...     epochs=2,
    ...     verbose=0,
    ... )
    >>> [trial.epochs for trial in result.trials]
    [1, 1, 2, 2, 2]

    Reference:
        Li, Jamieson, DeSalvo, Rostamizadeh & Talwalkar, "Hyperband: A Novel
        Bandit-Based Approach to Hyperparameter Optimization", 2018.
    """

    def __init__(
        self,
        factor: int = 3,
        iterations: int = 1,
        *,
        budget_steps: int | None = None,
        ranges: dict[str, Any] | None = None,
    ):
        super().__init__(None, budget_steps, ranges)
        self.factor = check_count(factor, "factor", 2)
        self.iterations = check_count(iterations, "iterations", 1)

    def plan(
        self, space: HyperparameterSpace, epochs: int, seed: int, workers: int
    ) -> Plan:
        """Return what proposes the trials; arguments as in `Search`."""
        keras_tuner_oracles.import_keras_tuner()
        ranges = find_ranges(space, self.ranges)
        return HyperbandPlan(ranges, epochs, seed, self.factor, self.iterations)

    def describe(self) -> dict[str, Any]:
        """Return what makes this search differ from others, for a file."""
        own = {"factor": self.factor, "iterations": self.iterations}
        return {**super().describe(), **own}


class HyperbandPlan(Plan):
    """Proposes trials at random, and those that go on with the best.

    It waits for a round to be finished before it proposes the next one, so that the
    proposals are the same with any number of workers.

    Args:
        ranges: The ranges of the hyperparameters.
        epochs: Number of epochs of a whole training.
        seed: Seed of the points.
        factor: As in `Hyperband`.
        iterations: As in `Hyperband`.
    """

    goes_on = True

    def __init__(
        self,
        ranges: Sequence[Range],
        epochs: int,
        seed: int,
        factor: int,
        iterations: int,
    ):
        super().__init__(ranges, epochs, seed)
        self._arguments = {
            "factor": factor,
            "hyperband_iterations": iterations,
            "seed": keras_tuner_oracles.make_seed(seed),
        }

    def propose(self, number: int, history: History) -> Proposal | Turn:
        # Which round comes next does not depend on scores; who goes on does.
        known = [math.inf if past.score is None else past.score for past in history]
        found = keras_tuner_oracles.follow_hyperband(
            known, len(self.entries), self.epochs, self._arguments
        )
        if found is None:
            return Turn.END
        place = {"bracket": found["bracket"], "round": found["round"]}
        parent = found["parent"]
        if parent is None:
            return Proposal(found["point"], found["epochs"], place=place)
        if self._is_open(history, found["bracket"], found["round"] - 1):
            return Turn.WAIT
        return Proposal(
            history[parent].proposal.point,
            found["epochs"],
            found["initial_epoch"],
            parent,
            place,
        )

    def _is_open(self, history, bracket, round):
        """Whether trials of a round of the last bracket are still trained."""
        wanted = {"bracket": bracket, "round": round}
        return any(p.score is None for p in history if p.proposal.place == wanted)
