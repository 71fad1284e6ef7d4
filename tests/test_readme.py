"""Every code block of the README runs as written, in order, in one session."""

import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_code_blocks_run(tmp_path, monkeypatch):
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved_models").mkdir()
    session = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), session)
    assert session["hp"].values()["dropout"] != 0.1
