"""Which points searches propose, and what they cost."""

import math

import numpy as np
import pytest

import bilevel_tf as bt
from bilevel_tf.search.bayesian_search import BayesianPlan
from bilevel_tf.search.hyperband import HyperbandPlan
from bilevel_tf.search.plan import Turn
from bilevel_tf.search.ranges import MARGIN, Range, find_ranges, values_at
from bilevel_tf.search.trial import Past
from tests.search.problems import data, network, outcome, ridge, run

LINE = [Range("x", (), 0.0, 1.0)]


def follow(plan, score, most=200):
    """The trials of a plan if a trial's score is a function of its proposal."""
    history = []
    while len(history) < most:
        proposal = plan.propose(len(history), history)
        if isinstance(proposal, Turn):
            break
        history.append(Past(proposal, score(proposal)))
    return history


def test_a_grid_finds_the_best_cell_of_ridge_regression():
    """Full batches until convergence: the validation loss is known in closed form."""
    (x, y), (x_valid, y_valid), _ = data()

    def closed_form(l2):
        # The loss is the mean of squares plus l2·‖w‖².
        gram = x.T @ x / len(x) + l2 * np.eye(6)
        w = np.linalg.solve(gram, x.T @ y / len(x))
        return float(np.mean((y_valid - x_valid @ w) ** 2))

    values = [1e-3, 1e-2, 1e-1, 1.0, 3.0]
    search = bt.search.GridSearch({"l2": values})
    result = run(search, lambda: ridge(0.1), epochs=150, batch_size=24)
    expected = [closed_form(l2) for l2 in values]
    np.testing.assert_allclose([t.score for t in result.trials], expected, rtol=1e-3)
    best = values[int(np.argmin(expected))]
    assert best not in (values[0], values[-1])
    assert result.best_values["l2"] == pytest.approx(best, rel=1e-5)


def test_a_grid_has_all_combinations_in_order():
    hp = bt.HyperparameterSpace(
        rate=bt.Uniform(0.0, 1.0, initial=0.5),
        l2=bt.LogUniform(1e-4, 1.0, initial=0.1),
        holes=bt.Integer(0, 1, initial=0),
    )
    plan = bt.search.GridSearch({"rate": 2, "l2": [0.1, 0.2]}).plan(hp, 1, 0, 1)
    found = [plan.values(past.proposal) for past in follow(plan, lambda p: 0.0)]
    assert plan.total == len(found) == 8
    np.testing.assert_allclose(
        [v["rate"] for v in found], [0.25] * 4 + [0.75] * 4, 3e-3
    )
    assert [v["l2"] for v in found[:4]] == [0.1, 0.1, 0.2, 0.2]
    assert [v["holes"] for v in found[:4]] == [0, 1, 0, 1]


def test_a_grid_of_a_logarithmic_scale_has_equal_ratios():
    hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-4, 1.0, initial=0.1))
    plan = bt.search.GridSearch(4).plan(hp, 1, 0, 1)
    values = [plan.values(p.proposal)["l2"] for p in follow(plan, lambda p: 0.0)]
    wanted = [10**-3.5, 10**-2.5, 10**-1.5, 10**-0.5]
    np.testing.assert_allclose(values, wanted, rtol=0.02)


def test_random_values_fill_the_range_evenly():
    hp = bt.HyperparameterSpace(
        l2=bt.LogUniform(1e-4, 1.0, initial=0.1), holes=bt.Integer(0, 2, initial=0)
    )
    plan = bt.search.RandomSearch(600).plan(hp, 1, 3, 1)
    values = [plan.values(p.proposal) for p in follow(plan, lambda p: 0.0, 600)]
    logarithms = np.log10([float(v["l2"]) for v in values])
    counts, _ = np.histogram(logarithms, bins=4, range=(-4, 0))
    assert counts.min() > 110
    assert np.bincount([int(v["holes"]) for v in values]).min() > 160


def test_open_ends_are_kept_off_and_given_ranges_kept():
    hp = bt.HyperparameterSpace(
        rate=bt.Uniform(0.0, 1.0, initial=0.5), l2=bt.Positive(0.5)
    )
    rate, l2 = find_ranges(hp, {"l2": (0.1, 10.0)})
    assert (rate.low, rate.high) == (MARGIN, 1.0 - MARGIN)
    assert (l2.low, l2.high, l2.logarithmic) == (0.1, 10.0, True)
    ends = [values_at([rate, l2], [end, end]) for end in (0.0, 1.0)]
    for end in ends:
        hp.assign(end)
    assert ends[1]["l2"] == pytest.approx(10.0)
    (linear,) = find_ranges(
        bt.HyperparameterSpace(l2=bt.Positive(0.5)), {"l2": (0.0 + 1e-3, 1, "linear")}
    )
    assert not linear.logarithmic


def test_random_search_is_reproducible():
    search = bt.search.RandomSearch(3)
    first, second = (run(search, network, seed=4) for _ in range(2))
    assert outcome(first) == outcome(second)
    other = run(search, network, seed=5)
    assert [t.values for t in other.trials] != [t.values for t in first.trials]


def bowl(plan):
    """A smooth function of one number with its minimum 0 at 0.3127."""
    return lambda proposal: (proposal.point[0] - 0.3127) ** 2


def test_the_gaussian_process_beats_chance_on_a_smooth_function():
    best = {"random": [], "process": []}
    for seed in range(4):
        for name, initial in (("random", 100), ("process", 3)):
            plan = BayesianPlan(LINE, 1, seed)
            plan.initial_trials = initial
            best[name].append(min(p.score for p in follow(plan, bowl(plan), 9)))
    assert np.median(best["process"]) < 0.1 * np.median(best["random"])


def test_the_gaussian_process_depends_on_history_alone():
    """So a search that goes on proposes what it would have proposed."""
    plan = BayesianPlan(LINE, 1, 0)
    history = follow(plan, bowl(plan), 6)
    again = BayesianPlan(LINE, 1, 0).propose(5, history[:5])
    assert again == history[5].proposal


def test_with_two_workers_the_last_trial_is_not_waited_for():
    plan = BayesianPlan(LINE, 1, 0)
    plan.lag = 2
    history = follow(plan, bowl(plan), 5)
    running = [*history[:4], Past(history[4].proposal, None)]
    # Finished or not, it is not looked at.
    assert plan.propose(5, running) == plan.propose(5, history)
    before = [*history[:3], Past(history[3].proposal, None), history[4]]
    assert plan.propose(5, before) is Turn.WAIT


def test_a_trial_that_diverged_drives_the_process_away():
    plan = BayesianPlan(LINE, 1, 0)

    def score(proposal):
        (u,) = proposal.point
        return math.inf if u > 0.5 else (u - 0.3) ** 2

    points = [p.proposal.point[0] for p in follow(plan, score, 12)]
    assert np.mean(np.asarray(points[6:]) > 0.5) < 0.5
    assert abs(min(points, key=lambda u: abs(u - 0.3)) - 0.3) < 0.05


def test_whole_numbers_are_not_tried_twice_by_the_process():
    plan = BayesianPlan([Range("n", (), 0, 4, whole=True)], 1, 0)
    history = follow(plan, lambda p: float(plan.values(p)["n"]))
    assert sorted(int(plan.values(p.proposal)["n"]) for p in history) == [0, 1, 2, 3, 4]


def test_hyperband_trains_few_trials_long():
    """Sizes and epochs of the paper's brackets for R = 9, η = 3, by KerasTuner."""
    plan = HyperbandPlan(LINE, 9, 0, factor=3, iterations=1)
    history = follow(plan, lambda p: p.point[0])
    table = {}
    for past in history:
        place, epochs = past.proposal.place, past.proposal.epochs
        key = place["bracket"], place["round"], epochs, past.proposal.initial_epoch
        table[key] = table.get(key, 0) + 1
    assert list(table) == [
        (2, 0, 1, 0),
        (2, 1, 3, 1),
        (2, 2, 9, 3),
        (1, 0, 3, 0),
        (1, 1, 9, 3),
        (0, 0, 9, 0),
    ]
    assert table[2, 0, 1, 0] == 9
    assert table[2, 1, 3, 1] == 3
    assert table[2, 2, 9, 3] == 1
    # Those that go on are the best of their round.
    first = sorted(p.proposal.point for p in history[:9])[:3]
    assert sorted(p.proposal.point for p in history[9:12]) == first


@pytest.mark.parametrize("running", [1, 3])
def test_hyperband_waits_for_a_round_and_proposes_the_same(running):
    plan = HyperbandPlan(LINE, 9, 0, factor=3, iterations=1)
    history = follow(plan, lambda p: p.point[0])
    open_round = [*history[: 9 - running]]
    open_round += [Past(p.proposal, None) for p in history[9 - running : 9]]
    assert plan.propose(9, open_round) is Turn.WAIT
    # Within a round nothing is waited for.
    one_more = [*history[:9], Past(history[9].proposal, None)]
    assert plan.propose(10, one_more) == history[10].proposal
    early = [Past(p.proposal, None) for p in history[:5]]
    assert plan.propose(5, early) == history[5].proposal


def test_hyperband_goes_on_if_trials_diverge():
    plan = HyperbandPlan(LINE, 9, 0, factor=3, iterations=1)
    history = follow(plan, lambda p: math.inf if p.point[0] > 0.4 else p.point[0])
    regular = follow(plan, lambda p: p.point[0])
    assert len(history) == len(regular)


def test_steps_are_counted_and_hyperband_goes_on_with_weights():
    result = run(bt.search.Hyperband(2), network, epochs=2)
    # 24 examples in batches of 8: three steps an epoch.
    assert [t.steps for t in result.trials] == [
        3 * (t.epochs - t.initial_epoch) for t in result.trials
    ]
    on = next(t for t in result.trials if t.parent is not None)
    parent = result.trials[on.parent]
    assert on.values == parent.values
    assert on.losses["loss"] < parent.losses["loss"]
    assert result.best.epochs == 2
    assert result.steps == sum(t.steps for t in result.trials)


@pytest.mark.parametrize(
    ("search", "epochs", "budget", "trials"),
    [
        (lambda b: bt.search.RandomSearch(budget_steps=b), 2, 20, 3),
        (lambda b: bt.search.RandomSearch(2, budget_steps=b), 2, 20, 2),
        (lambda b: bt.search.GridSearch(4, budget_steps=b), 2, 17, 2),
        (lambda b: bt.search.Hyperband(2, budget_steps=b), 2, 10, 3),
    ],
    ids=["random", "both", "grid", "hyperband"],
)
def test_a_budget_of_steps_is_kept(search, epochs, budget, trials):
    result = run(search(budget), epochs=epochs)
    assert len(result.trials) == trials
    assert result.steps <= budget


def test_two_workers_give_what_one_gives():
    for search, epochs in (
        (bt.search.RandomSearch(3), 1),
        (bt.search.Hyperband(2), 2),
    ):
        one = run(search, network, epochs=epochs)
        two = run(search, network, epochs=epochs, workers=2)
        assert outcome(one) == outcome(two)


def test_best_so_far_and_the_table():
    result = run(bt.search.RandomSearch(3), epochs=2)
    steps, best = result.best_so_far()
    assert steps.tolist() == [6, 12, 18]
    assert (
        best.tolist()
        == np.minimum.accumulate([t.score for t in result.trials]).tolist()
    )
    steps, best = result.best_so_far(every_epoch=True)
    assert steps.tolist() == [3, 6, 9, 12, 15, 18]
    assert best[-1] == min(min(t.validation) for t in result.trials)
    seconds, _ = result.best_so_far("seconds")
    assert seconds[-1] == pytest.approx(result.seconds)
    table = result.table()
    assert [row["total_steps"] for row in table] == [6, 12, 18]
    assert table[1]["l2"] == result.trials[1].values["l2"]
    assert "RandomSearch: 3 trials, 18 steps" in str(result)
