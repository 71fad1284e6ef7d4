"""Search on a grid."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bilevel_tf._arguments import check_count, show
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.search.plan import History, Plan, Turn
from bilevel_tf.search.ranges import Range, find_ranges
from bilevel_tf.search.search import Search
from bilevel_tf.search.trial import Proposal

_MOST = 100_000


class GridSearch(Search):
    """Tries all combinations of some values of every hyperparameter.

    A number n of values stands for the middles of n equal parts of the range, on a
    logarithmic scale for `LogUniform` and `Positive`; so neither end is a value. The
    last hyperparameter changes fastest.

    Args:
        points: Number of values of every hyperparameter; or a dict from names to such
            numbers or to lists of the values themselves. Those that are left out have
            5. Of whole numbers there are not more than the range has. Every entry of
            a vector-valued hyperparameter has that number of values on its own, and a
            value in a list is a whole vector. Defaults to 5.
        budget_steps: Number of training steps of all trials together; a trial that
            would exceed it is not begun. Defaults to `None`: no limit.
        ranges: Dict from names to (low, high), as for `RandomSearch`. Defaults to
            `None`: the range of each scale.

    Raises:
        ValueError: If `points` has a number below 1 or an empty list. At `run`, if
            there are more than 100,000 combinations, a name is unknown or a value is
            outside its scale.
        TypeError: If `points` is neither a number nor a dict.

    Example:

    >>> def build():
    ...     hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    ...     inputs = keras.Input((3,))
    ...     outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    ...     model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    ...     model.compile("sgd", loss="mse")
    ...     return model
    >>> x, y = np.random.default_rng(0).normal(size=(2, 20, 3))
    >>> search = bt.search.GridSearch({"l2": [1e-4, 1e-2]})
    >>> result = search.run(
    ...     build, x[:10], y[:10, :1], validation_data=(x[10:], y[10:, :1]), verbose=0
    ... )
    >>> [round(trial.values["l2"], 6) for trial in result.trials]
    [0.0001, 0.01]
    """

    def __init__(
        self,
        points: int | dict[str, int | list] = 5,
        *,
        budget_steps: int | None = None,
        ranges: dict[str, Any] | None = None,
    ):
        super().__init__(None, budget_steps, ranges)
        if isinstance(points, Mapping):
            for name, given in points.items():
                _check_points(given, f"points['{name}']")
            self.points: Any = dict(points)
        elif isinstance(points, (list, tuple)):
            raise TypeError(
                "`points` must be a number, or a dict from names to numbers or lists "
                f"of values. Received: points={show(points)}"
            )
        else:
            self.points = check_count(points, "points", 1)

    def plan(
        self, space: HyperparameterSpace, epochs: int, seed: int, workers: int
    ) -> Plan:
        """Return what proposes the trials; arguments as in `Search`."""
        by_name = self.points if isinstance(self.points, dict) else {}
        space.check_names(by_name)
        listed = {n for n, given in by_name.items() if isinstance(given, (list, tuple))}
        for name in listed:
            for value in by_name[name]:
                scale = space.scales[name]
                scale.check_value(value, f"points['{name}']", space.dtype)
        ranges = find_ranges(space, self.ranges, listed)
        return GridPlan(ranges, epochs, seed, self.points)

    def describe(self) -> dict[str, Any]:
        """Return what makes this search differ from others, for a file."""
        return {**super().describe(), "points": self.points}


class GridPlan(Plan):
    """Proposes the cells of a grid in order.

    Args:
        ranges: The ranges of the hyperparameters.
        epochs: Number of epochs of a whole training.
        seed: Not used.
        points: As `GridSearch` was given them.
    """

    def __init__(
        self, ranges: Sequence[Range], epochs: int, seed: int, points: int | dict
    ):
        super().__init__(ranges, epochs, seed)
        by_name = points if isinstance(points, dict) else {}
        count = points if isinstance(points, int) else 5
        self._axes = [_list_values(r, by_name.get(r.name, count)) for r in ranges]
        self._shape = [len(axis) for axis in self._axes]
        self.total = math.prod(self._shape)
        if self.total > _MOST:
            raise ValueError(
                f"A grid must have at most {_MOST:,} combinations. Give fewer "
                f"`points`, or use RandomSearch. Received: {self.total:,} combinations"
            )

    def propose(self, number: int, history: History) -> Proposal | Turn:
        if number >= (self.total or 0):
            return Turn.END
        index = np.unravel_index(number, self._shape)
        pairs = zip(self.ranges, self._axes, index, strict=True)
        return Proposal({r.name: axis[int(i)] for r, axis, i in pairs}, self.epochs)

    def values(self, proposal: Proposal) -> dict[str, Any]:
        assert isinstance(proposal.point, dict)
        return proposal.point


def _list_values(found: Range, given: int | list) -> list:
    """The values of one hyperparameter, as numbers or nested lists."""
    if isinstance(given, (list, tuple)):
        return [np.asarray(value).tolist() for value in given]
    count = min(given, int(found.high - found.low + 1)) if found.whole else given
    middles = (np.arange(count) + 0.5) / count
    entries = len(found.entries)
    if entries * math.log(count) > math.log(_MOST):
        raise ValueError(
            f"A grid must have at most {_MOST:,} combinations. Give a list of vectors "
            f"as points['{found.name}'], or use RandomSearch. Received: {count} values "
            f"for each of {entries} entries of '{found.name}'"
        )
    return [
        found.value(position).tolist()
        for position in itertools.product(middles, repeat=entries)
    ]


def _check_points(given, name):
    if isinstance(given, (list, tuple)):
        if not len(given):
            raise ValueError(f"`{name}` must have a value. Received: {name}=[]")
        return
    check_count(given, name, 1)
