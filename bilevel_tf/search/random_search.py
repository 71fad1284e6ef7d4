"""Search at random."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.search.plan import History, Plan, Turn
from bilevel_tf.search.ranges import Range, find_ranges, values_at
from bilevel_tf.search.search import Search
from bilevel_tf.search.trial import Proposal


class RandomSearch(Search):
    """Tries values drawn at random from the range of every hyperparameter.

    Values are uniform in the range; those of `LogUniform` and `Positive` scales have
    uniform logarithms. Whole numbers all have the same probability; if all
    hyperparameters are whole numbers, no point is tried twice.

    Args:
        trials: Number of trials. Defaults to `None`: 30, or as many as the budget has
            room for.
        budget_steps: Number of training steps of all trials together; a trial that
            would exceed it is not begun. Defaults to `None`: no limit.
        ranges: Dict from names to (low, high), where to search if not in the whole
            range of the scale; (low, high, "log") or (low, high, "linear") says how
            values are spread as well. Scales without ends, such as `Positive`, need it.
            Defaults to `None`: the range of each scale.

    Raises:
        ValueError: If a number is not whole and positive.

    Example:

    >>> def build():
    ...     hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    ...     inputs = keras.Input((3,))
    ...     outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    ...     model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    ...     model.compile("sgd", loss="mse")
    ...     return model
    >>> x, y = np.random.default_rng(0).normal(size=(2, 20, 3))
    >>> search = bt.search.RandomSearch(trials=3)
    >>> result = search.run(
    ...     build, x[:10], y[:10, :1], validation_data=(x[10:], y[10:, :1]), verbose=0
    ... )
    >>> len(result.trials)
    3

    Reference:
        Bergstra & Bengio, "Random Search for Hyper-Parameter Optimization", 2012.
    """

    def __init__(
        self,
        trials: int | None = None,
        *,
        budget_steps: int | None = None,
        ranges: dict[str, Any] | None = None,
    ):
        super().__init__(trials, budget_steps, ranges)
        self._default_trials(30)

    def plan(
        self, space: HyperparameterSpace, epochs: int, seed: int, workers: int
    ) -> Plan:
        """Return what proposes the trials; arguments as in `Search`."""
        return RandomPlan(find_ranges(space, self.ranges), epochs, seed)


class RandomPlan(Plan):
    """Proposes points at random; the n-th depends on the seed and n alone."""

    def __init__(self, ranges: Sequence[Range], epochs: int, seed: int):
        super().__init__(ranges, epochs, seed)
        self._draws: list[int] = []
        self._seen: set[tuple] = set()
        self.total = count_points(ranges)

    def propose(self, number: int, history: History) -> Proposal | Turn:
        if self.total is None:
            return Proposal(self.draw(number), self.epochs)
        if number >= self.total:
            return Turn.END
        while len(self._draws) <= number:
            self._draw_another()
        return Proposal(self.draw(self._draws[number]), self.epochs)

    def draw(self, index: int) -> tuple[float, ...]:
        """Return the point of a draw."""
        generator = np.random.default_rng([self.seed, index])
        return tuple(generator.random(len(self.entries)).tolist())

    def _draw_another(self):
        """Find the next draw whose values have not been drawn before."""
        index = self._draws[-1] + 1 if self._draws else 0
        while (key := freeze_values(self.ranges, self.draw(index))) in self._seen:
            index += 1
        self._seen.add(key)
        self._draws.append(index)


def count_points(ranges: Sequence[Range]) -> int | None:
    """Return how many different points there are; `None` for a continuum."""
    if not all(each.whole for each in ranges):
        return None
    counts = [int(r.high - r.low + 1) ** len(r.entries) for r in ranges]
    return math.prod(counts)


def freeze_values(ranges: Sequence[Range], point: Sequence[float]) -> tuple:
    """Return the values at a point in a form that sets can hold."""
    values = values_at(ranges, point)
    return tuple(tuple(np.ravel(value).tolist()) for value in values.values())
