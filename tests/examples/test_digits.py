"""The demo in small."""

import digits


def test_runs_and_tunes(tmp_path):
    tuned, fixed = digits.main(
        ["--epochs=12", f"--output={tmp_path}", f"--saved-model={tmp_path / 'saved'}"]
    )
    assert tuned[1] > 0.9
    assert tuned[0] < fixed[0]
    assert (tmp_path / "digits.png").stat().st_size > 1000
