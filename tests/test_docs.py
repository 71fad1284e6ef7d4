"""What the documentation promises: links that lead somewhere, and every public name.

`make docs` builds the site, with warnings as errors.
"""

import importlib
import pathlib
import re
import sys
import types

import pytest

import bilevel_tf

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def extensions():
    """The modules that make pages from the code."""
    sys.path.insert(0, str(DOCS / "extensions"))
    try:
        yield importlib.import_module("generated_pages")
    finally:
        sys.path.remove(str(DOCS / "extensions"))


def test_the_reference_has_every_public_name(extensions):
    pages = extensions.reference()
    public = [getattr(bilevel_tf, name) for name in bilevel_tf.__all__]
    namespaces = [value for value in public if isinstance(value, types.ModuleType)]
    text = "\n".join(pages.values())
    for module in [bilevel_tf, *namespaces]:
        for name in module.__all__:
            if getattr(module, name) not in namespaces:
                assert re.search(rf":: bilevel_tf\.[\w.]*\b{name}$", text, re.M), name


def test_the_gallery_has_every_example(extensions):
    folder = ROOT / "examples"
    examples = {path.stem for path in folder.glob("*.py")}
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    pages = extensions.gallery()
    assert set(pages) == {*examples, *packages, "index"}
    for path in folder.glob("*/[!_]*.py"):
        assert f"examples/{path.parent.name}/{path.name}" in pages[path.parent.name]


def written_pages():
    """The pages that people wrote."""
    top = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    generated = {"_build", "gallery", "reference"}
    inside = [p for p in DOCS.rglob("*.md") if not generated.intersection(p.parts)]
    return [*top, *sorted(inside)]


@pytest.mark.parametrize("page", written_pages(), ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        generated = re.match(r"(\.\./)*(reference|gallery)/", target)
        if "://" not in target and not generated:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", written_pages(), ids=lambda p: p.name)
def test_public_names_in_text_exist(page):
    """`bt.…` in code font is a name of the library."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for dotted in re.findall(r"`bt\.([A-Za-z][\w.]*)", text):
        value = bilevel_tf
        for part in dotted.split("."):
            value = getattr(value, part)


def test_the_version_is_said_once():
    """`setup.cfg` reads it from the package; the citation and changelog repeat it."""
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert "version = attr: bilevel_tf.__version__" in setup
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {bilevel_tf.__version__}\n" in citation
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert bilevel_tf.__version__ in changelog


class TestDocstringMarkup:
    """Docstrings become the reStructuredText that Sphinx reads."""

    @pytest.fixture
    def to_rst(self, extensions):
        return importlib.import_module("docstring_markup").to_rst

    def test_code_in_single_backticks(self, to_rst):
        assert to_rst(["The `x` of `f`s."]) == ["The ``x`` of ``f``\\ s."]

    def test_characters_that_are_markup_elsewhere(self, to_rst):
        assert to_rst(["w* and |H| and x_"]) == ["w\\* and \\|H\\| and x\\_"]

    def test_names_of_arguments_stay(self, to_rst):
        lines = ["Args:", "    **kwargs: Of `Layer`."]
        assert to_rst(lines) == ["Args:", "    **kwargs: Of ``Layer``."]

    def test_formulas_are_literal(self, to_rst):
        lines = ["Then", "", "    a = b*c", "    d = |e|", "", "holds."]
        expected = [
            "Then",
            "",
            "::",
            "",
            "    a = b*c",
            "    d = |e|",
            "",
            "",
            "holds.",
        ]
        assert to_rst(lines) == expected

    def test_examples_stay(self, to_rst):
        lines = ["Example:", "", ">>> f(**x) | `y`", "3"]
        assert to_rst(lines) == lines

    def test_fenced_code_is_literal(self, to_rst):
        lines = ["Like", "```python", "f(*x)", "```", "so."]
        expected = ["Like", "::", "", "    f(*x)", "", "", "so."]
        assert [line for line in to_rst(lines) if line] == [x for x in expected if x]
