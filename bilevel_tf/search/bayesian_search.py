"""Search by a Gaussian process."""

import math
from typing import Any

from bilevel_tf._arguments import check_count, check_non_negative, check_positive
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.search import keras_tuner_oracles
from bilevel_tf.search.plan import History, Plan, Turn
from bilevel_tf.search.random_search import RandomPlan, freeze_values
from bilevel_tf.search.ranges import find_ranges
from bilevel_tf.search.search import Search
from bilevel_tf.search.trial import Proposal


class BayesianSearch(Search):
    """Tries the point at which a Gaussian process promises most.

    The process, with a Matérn kernel of ν = 5/2, is fitted to the scores of the trials
    so far, as a function of positions in the ranges. The next point minimises its mean
    minus `exploration` times its standard deviation. Process and minimisation are
    KerasTuner's, which must be installed, with scikit-learn.

    The n-th point depends on the trials up to n − `workers`; those after them count as
    bad as the worst. So the result depends on the number of workers, and not on which
    of them is faster.

    Args:
        trials: Number of trials. Defaults to `None`: 30, or as many as the budget has
            room for.
        budget_steps: Number of training steps of all trials together; a trial that
            would exceed it is not begun. Defaults to `None`: no limit.
        ranges: Dict from names to (low, high), as for `RandomSearch`. Defaults to
            `None`: the range of each scale.
        initial_trials: Number of trials at random before the first that is chosen.
            Defaults to `None`: three per entry of the hyperparameters, as in
            KerasTuner.
        noise: Variance that is added to the kernel's diagonal, for scores of variance
            1: how far scores are to be trusted. Defaults to 1e-4, as in KerasTuner.
        exploration: How many standard deviations of the process are subtracted from
            its mean. Defaults to 2.6, as in KerasTuner.

    Raises:
        ValueError: If a number is out of range.
        ImportError: At `run`, if KerasTuner or scikit-learn is not installed.

    Example:

    >>> def build():
    ...     hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    ...     inputs = keras.Input((3,))
    ...     outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    ...     model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    ...     model.compile("sgd", loss="mse")
    ...     return model
    >>> x, y = np.random.default_rng(0).normal(size=(2, 20, 3))
    >>> search = bt.search.BayesianSearch(trials=3, initial_trials=2)
    >>> result = search.run(
    ...     build, x[:10], y[:10, :1], validation_data=(x[10:], y[10:, :1]), verbose=0
    ... )
    >>> len(result.trials)
    3

    Reference:
        Srinivas et al., "Gaussian Process Optimization in the Bandit Setting", 2010;
        Ginsbourger, Le Riche & Carraro, "Kriging Is Well-Suited to Parallelize
        Optimization", 2010, for the trials that are not finished.
    """

    def __init__(
        self,
        trials: int | None = None,
        *,
        budget_steps: int | None = None,
        ranges: dict[str, Any] | None = None,
        initial_trials: int | None = None,
        noise: float = 1e-4,
        exploration: float = 2.6,
    ):
        super().__init__(trials, budget_steps, ranges)
        self._default_trials(30)
        if initial_trials is not None:
            check_count(initial_trials, "initial_trials", 1)
        self.initial_trials = initial_trials
        self.noise = check_positive(noise, "noise")
        self.exploration = check_non_negative(exploration, "exploration")

    def plan(
        self, space: HyperparameterSpace, epochs: int, seed: int, workers: int
    ) -> Plan:
        """Return what proposes the trials; arguments as in `Search`."""
        keras_tuner_oracles.import_keras_tuner(gaussian_process=True)
        plan = BayesianPlan(find_ranges(space, self.ranges), epochs, seed)
        plan.lag = workers
        plan.noise, plan.exploration = self.noise, self.exploration
        plan.initial_trials = self.initial_trials or max(3, 3 * len(plan.entries))
        return plan

    def describe(self) -> dict[str, Any]:
        """Return what makes this search differ from others, for a file."""
        own = {
            "initial_trials": self.initial_trials,
            "noise": self.noise,
            "exploration": self.exploration,
        }
        return {**super().describe(), **own}


class BayesianPlan(RandomPlan):
    """Proposes points at random first, then those of a Gaussian process.

    Attributes:
        initial_trials: Number of points at random.
        lag: The n-th point depends on the trials up to n − lag.
        noise: As in `BayesianSearch`.
        exploration: As in `BayesianSearch`.
    """

    initial_trials = 3
    lag = 1
    noise = 1e-4
    exploration = 2.6

    def propose(self, number: int, history: History) -> Proposal | Turn:
        if number < self.initial_trials:
            return super().propose(number, history)
        if self.total is not None and number >= self.total:
            return Turn.END
        seen = number + 1 - self.lag
        if any(past.score is None for past in history[:seen]):
            return Turn.WAIT
        known = [past.score or 0.0 for past in history[:seen]]
        finite = [score for score in known if math.isfinite(score)]
        if not finite:
            return super().propose(number, history)
        known += [math.inf] * (number - len(known))
        scores = [s if math.isfinite(s) else max(finite) for s in known]
        points = [tuple(past.proposal.point) for past in history]
        point = keras_tuner_oracles.suggest_point(
            points, scores, self._seed_of(number), self.noise, self.exploration
        )
        return Proposal(self._replace_tried(point, points), self.epochs)

    def _seed_of(self, number):
        return keras_tuner_oracles.make_seed(self.seed, number)

    def _replace_tried(self, point, points):
        """Another point, at random, if all are whole numbers and these were tried."""
        if self.total is None:
            return point
        tried = {freeze_values(self.ranges, other) for other in points}
        index = 0
        while freeze_values(self.ranges, point) in tried:
            point, index = self.draw(index), index + 1
        return point
