"""The step cost benchmark runs and reports every method; times are not asserted."""

import re

import pytest

import bilevel_tf as bt
from benchmarks import networks, step_cost

pytestmark = pytest.mark.usefixtures("spare_hyperparameters")


def rows(lines):
    """Cells of every table row by their first."""
    cells = [
        [c.strip() for c in line.split("|")[1:-1]] for line in lines if "|" in line
    ]
    return {row[0]: row[1:] for row in cells}


def is_ratio(cell):
    return re.fullmatch(r"\d+\.\d\d", cell) is not None


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["mlp"], ["DeltaSTN()", "DeltaSTN(shared_pass=True)"]),
        (["cnn"], ["DeltaSTN(response_share=0.5)", "CenteredSTN()", "STN()"]),
        pytest.param(networks.TINY, step_cost.METHODS, marks=pytest.mark.slow),
    ],
    ids=["mlp", "cnn", "all"],
)
def test_quick_report_has_all_rows(keys, names, monkeypatch):
    methods = {name: step_cost.METHODS[name] for name in names}
    monkeypatch.setattr(step_cost, "METHODS", methods)
    chosen = {key: networks.TINY[key] for key in keys}
    options = step_cost.parse(["--quick", "--rounds", "1", "--sizes", "3", "5"])
    lines = step_cost.report(chosen, options)
    assert "2 threads" in lines[0]
    assert "/" not in lines[0]
    for network in chosen.values():
        start = next(
            i for i, t in enumerate(lines) if t.startswith(f"| {network.title} ")
        )
        table = rows(lines[start : start + 4 + len(step_cost.METHODS)])
        assert "ms" in table[step_cost.PLAIN][0]
        for name in step_cost.METHODS:
            assert all(map(is_ratio, table[name][:3])), table[name]
    if "mlp" in chosen:
        sizes = rows(lines)
        assert all(map(is_ratio, sizes["h = 3"] + sizes["h = 5"]))


def test_whole_round_adds_a_share_of_the_outer_step():
    times = {"inner": [1.0, 2.0], "outer": [10.0, 20.0]}
    assert step_cost.whole_round(times) == [3.0, 6.0]


def test_ratio_is_the_median_within_rounds():
    assert step_cost.ratio([2.0, 9.0, 30.0], [1.0, 3.0, 10.0]) == "3.00"


@pytest.mark.parametrize("key", networks.TINY)
def test_plain_and_bilevel_networks_are_one_architecture(key):
    plain = networks.compiled_plain(networks.TINY[key])
    bilevel = networks.compiled_bilevel(networks.TINY[key], bt.DeltaSTN())
    shapes = [w.shape for w in plain.trainable_weights]
    assert shapes == [w.shape for w in bilevel.trainable_weights]


def test_idle_hyperparameters_fill_the_space():
    method = bt.DeltaSTN()
    model = networks.compiled_bilevel(networks.TINY["mlp"], method, hyperparameters=7)
    assert model.hyperparameters.size == 7


def test_memory_grows():
    assert step_cost.memory_growth(networks.mlp(256), "DeltaSTN()", jit=False) >= 0
