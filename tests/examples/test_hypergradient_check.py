"""The check of the hypergradient in small."""

import hypergradient_check
import numpy as np


def test_prints_every_method(capsys):
    arguments = ["--rates=0.2", "--epochs=2", "--seeds=1", "--width=8"]
    rows = hypergradient_check.main(arguments)
    assert [row[2] for row in rows] == list(hypergradient_check.METHODS)
    assert all(np.isfinite(row[3]) and row[3] != 0.0 for row in rows)
    assert "retrained at 0.70" in capsys.readouterr().out
