"""The examples of what users write themselves: short, and they tune."""

import pathlib
import runpy

import pytest

import bilevel_tf as bt

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["own_layer", "own_method", "own_objective"])
def test_runs_and_tunes_in_under_forty_lines(name, monkeypatch):
    fit = bt.BilevelModel.fit

    def fit_briefly(model, *args, **kwargs):
        args, kwargs["epochs"] = args[:3], 1
        return fit(model, *args, **{**kwargs, "verbose": 0})

    monkeypatch.setattr(bt.BilevelModel, "fit", fit_briefly)
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) < 40
    space = runpy.run_path(str(path))["hp"]
    initial = {name: float(scale.initial) for name, scale in space.scales.items()}
    assert space.values() != pytest.approx(initial, rel=1e-3)
