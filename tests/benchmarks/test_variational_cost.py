"""The cost of posteriors is reported for every estimator; times are not asserted."""

import bilevel_tf as bt
from benchmarks import networks, variational_cost
from tests.benchmarks.test_step_cost import is_ratio, rows


def test_quick_report_has_all_rows():
    options = variational_cost.parse(["--quick", "--rounds", "1", "--networks", "cnn"])
    lines = variational_cost.report(networks.TINY, options)
    table = rows(lines)
    assert all("ms" in cell for cell in table[variational_cost.PLAIN])
    for name in (variational_cost.FLOOR, *variational_cost.ESTIMATORS):
        assert all(map(is_ratio, table[name])), table[name]


def test_layers_have_the_estimator():
    layers = variational_cost.variational("flipout")
    assert isinstance(layers.dense(3), bt.VariationalDense)
    assert layers.dense(3).estimator == "flipout"
    assert variational_cost.variational(None).dense(3).estimator == "local"
    assert variational_cost.variational(None).conv(3, 2).estimator == "flipout"
