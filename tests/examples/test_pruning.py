"""The pruning example in small."""

import pruning
import pytest


def test_runs_and_prunes(tmp_path, capsys):
    curves = pruning.main(
        ["--epochs=15", "--units=20", "--batch-size=100", f"--output={tmp_path}"]
    )
    assert list(curves) == list(pruning.RUNS)
    for rows in curves.values():
        assert rows[0]["share"] == 0.0
        assert rows[0]["accuracy"] > 0.8
        # Half of the weights are to spare, nearly all are not.
        assert rows[1]["accuracy"] > rows[0]["accuracy"] - 0.05
        assert rows[-1]["accuracy"] < rows[0]["accuracy"]
    assert (tmp_path / "pruning.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    precisions = [line for line in printed.splitlines() if line.startswith("untuned")]
    assert precisions[0].split()[1:] == ["1", "1"]


@pytest.mark.parametrize("name", ["gradient", "Graves"])
def test_precisions_are_tuned(name):
    args = pruning.parse(["--epochs=5", "--units=8", "--batch-size=100"])
    (x, y), _ = pruning.load("digits", limit=200)
    model = pruning.train(name, (x, y), args)
    assert all(value != 1.0 for value in model.hyperparameters.values().values())
