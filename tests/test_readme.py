"""Every code block of the README and of the documentation runs as written.

The blocks of a page run in order, in one session. What is not meant to run has another
language than `python`.
"""

import pathlib
import re

import pytest

import bilevel_tf as bt

ROOT = pathlib.Path(__file__).parents[1]
GENERATED = {"_build", "gallery", "reference"}


def blocks(path):
    """The page's blocks of code, each behind as many blank lines as are before it."""
    text = path.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text[: m.start(1)].count("\n") + m[1] for m in found]


def pages():
    """The README and all pages that have code."""
    written = (ROOT / "docs").rglob("*.md")
    written = [p for p in written if not GENERATED.intersection(p.parts)]
    return [p for p in [ROOT / "README.md", *sorted(written)] if blocks(p)]


def run(path):
    """The names that a page's blocks leave behind."""
    session = {"__name__": "__main__"}
    for block in blocks(path):
        exec(compile(block, str(path), "exec"), session)
    return session


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if page.name == "README.md":
        assert run(page)["hp"].values()["dropout"] != 0.5
        return
    # Other pages train for a moment only.
    fit = bt.BilevelModel.fit

    def fit_briefly(*arguments, epochs=1, **others):
        return fit(*arguments, epochs=min(epochs, 3), **others)

    monkeypatch.setattr(bt.BilevelModel, "fit", fit_briefly)
    run(page)


def test_the_readme_is_one_page():
    assert (ROOT / "README.md").stat().st_size <= 10_000
