"""The check of the hypergradient in small."""

import hypergradient_check
import numpy as np


def test_prints_every_method(capsys, monkeypatch):
    # The fewest rates that determine a cubic.
    monkeypatch.setattr(hypergradient_check, "GRID", (0.05, 0.2, 0.5, 0.7))
    arguments = ["--rates=0.2", "--epochs=1", "--seeds=1", "--width=8"]
    rows = hypergradient_check.main(arguments)
    assert [row[2] for row in rows] == list(hypergradient_check.METHODS)
    assert all(np.isfinite(row[3]) and row[3] != 0.0 for row in rows)
    assert "retrained at 0.70" in capsys.readouterr().out
