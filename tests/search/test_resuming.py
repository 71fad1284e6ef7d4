"""A search that is killed goes on, and ends as it would have ended."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import bilevel_tf as bt
from tests.search.problems import data, diverging, outcome, run

ROOT = pathlib.Path(__file__).parents[2]

SEARCHES = {
    "random": bt.search.RandomSearch(4),
    "grid": bt.search.GridSearch(4),
    "bayesian": bt.search.BayesianSearch(4, initial_trials=2),
    "hyperband": bt.search.Hyperband(2),
}


def lines_of(folder):
    return (folder / "search.jsonl").read_text(encoding="utf-8").splitlines()


def cut(folder, kept, rest=""):
    """Leave the heading and some trials, and part of another line."""
    lines = lines_of(folder)[: kept + 1]
    text = "".join(line + "\n" for line in lines) + rest
    (folder / "search.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", SEARCHES)
def test_it_goes_on_after_a_half_written_line(name, tmp_path):
    search = SEARCHES[name]
    whole = run(search, epochs=2, directory=tmp_path)
    last = lines_of(tmp_path)[3]
    if name == "hyperband":
        # The states of finished trials are there while the search is not.
        cut(tmp_path, 0)
    else:
        cut(tmp_path, 2, last[: len(last) // 2])
    again = run(search, epochs=2, directory=tmp_path)
    assert outcome(again) == outcome(whole)
    assert len(lines_of(tmp_path)) == 1 + len(whole.trials)


def test_hyperband_goes_on_from_states(tmp_path, monkeypatch):
    """Killed after four trials, one of which is then trained on."""
    from bilevel_tf.search import training

    search, train, count = bt.search.Hyperband(2), training.Trainer.train, [0]
    whole = run(search, epochs=2)

    def die(self, number, proposal, values):
        if number == 3:
            raise KeyboardInterrupt
        return train(self, number, proposal, values)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "train", die)
        with pytest.raises(KeyboardInterrupt):
            run(search, epochs=2, directory=tmp_path)

    def train_and_count(self, number, proposal, values):
        count[0] += 1
        return train(self, number, proposal, values)

    monkeypatch.setattr(training.Trainer, "train", train_and_count)
    again = run(search, epochs=2, directory=tmp_path)
    assert outcome(again) == outcome(whole)
    assert count[0] == len(whole.trials) - 3
    assert not (tmp_path / "states").exists()


def test_a_process_that_was_killed(tmp_path):
    """SIGKILL at some moment, twice; the file has whole lines or a cut one."""
    code = (
        "import bilevel_tf as bt\n"
        "from tests.search.problems import run\n"
        f"run(bt.search.RandomSearch(6), epochs=2, directory={str(tmp_path)!r})\n"
    )
    file = tmp_path / "search.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if file.exists() and file.read_bytes().count(b"\n") >= 3:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait(60)
    before = file.read_bytes()
    assert before.count(b"\n") >= 3
    again = run(bt.search.RandomSearch(6), epochs=2, directory=tmp_path)
    assert outcome(again) == outcome(run(bt.search.RandomSearch(6), epochs=2))
    # What was there has not been written again.
    whole = before[: before.rfind(b"\n") + 1]
    assert file.read_bytes().startswith(whole)


def test_a_finished_search_trains_nothing(tmp_path, monkeypatch):
    from bilevel_tf.search import training

    search = SEARCHES["random"]
    whole = run(search, directory=tmp_path)
    monkeypatch.setattr(training.Trainer, "train", None)
    again = run(search, directory=tmp_path)
    assert [t.seconds for t in again.trials] == [t.seconds for t in whole.trials]
    assert outcome(again) == outcome(whole)


def test_more_trials_may_be_asked_for(tmp_path):
    run(bt.search.RandomSearch(2), directory=tmp_path)
    longer = run(bt.search.RandomSearch(3), directory=tmp_path)
    assert outcome(longer) == outcome(run(bt.search.RandomSearch(3)))
    shorter = run(bt.search.RandomSearch(2), directory=tmp_path)
    assert outcome(shorter) == outcome(longer)[:2]


def test_a_trial_that_diverged_stays_so(tmp_path):
    search = bt.search.GridSearch({"l2": [90.0, 0.1]})
    with pytest.warns(RuntimeWarning, match="diverged"):
        whole = run(search, diverging, epochs=12, directory=tmp_path)
    assert "NaN" not in (tmp_path / "search.jsonl").read_text(encoding="utf-8")
    again = run(search, diverging, epochs=12, directory=tmp_path)
    assert outcome(again) == outcome(whole)
    assert again.trials[0].score == np.inf


def test_other_settings_and_data_are_refused(tmp_path):
    search = SEARCHES["random"]
    run(search, directory=tmp_path)
    for change, says in (
        ({"seed": 1}, "seed=1, and 0 in the file"),
        ({"epochs": 2}, "epochs=2, and 1"),
        ({"batch_size": 4}, "batch_size=4, and 8"),
        ({"validation_data": data()[2]}, "data="),
    ):
        with pytest.raises(ValueError, match="is of another search") as caught:
            run(search, directory=tmp_path, **change)
        assert says in str(caught.value)
    for other in (SEARCHES["grid"], bt.search.RandomSearch(4, ranges={"l2": (1, 2)})):
        with pytest.raises(ValueError, match="is of another search"):
            run(other, directory=tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    run(SEARCHES["random"], directory=tmp_path)
    file = tmp_path / "search.jsonl"
    lines = lines_of(tmp_path)
    file.write_text("\n".join([lines[0], "{oops", *lines[2:]]) + "\n")
    with pytest.raises(ValueError, match=r"Line 2 of .* is not what a search writes"):
        run(SEARCHES["random"], directory=tmp_path)
    file.write_text("\n".join([lines[0], json.dumps({"number": 1})]) + "\n")
    with pytest.raises(ValueError, match="is not a trial"):
        run(SEARCHES["random"], directory=tmp_path)
