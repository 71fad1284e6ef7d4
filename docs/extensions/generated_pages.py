"""Pages that are made from the code: the reference, and the gallery of examples."""

import ast
import importlib
import inspect
import pathlib
import types

import docstring_markup
import public_names

_DOCS = pathlib.Path(__file__).parents[1]
_EXAMPLES = _DOCS.parent / "examples"


def reference():
    """The pages of the reference, a dict from file names to their text."""
    pages = {}
    homes = public_names.names_at_home()
    for home, names in homes.items():
        module = importlib.import_module(home)
        pages[home] = _namespace_page(module, names)
        for name in names:
            pages[f"{home}.{name}"] = _name_page(home, name, getattr(module, name))
    pages["index"] = "\n".join(
        [
            *_title("Reference"),
            "Every public name. The two dozen that nearly every program needs are also",
            "at the top: ``bt.methods.DeltaSTN`` is ``bt.DeltaSTN`` as well.",
            "",
            *_toctree(homes),
        ]
    )
    return pages


def _namespace_page(module, names):
    alias = module.__name__.replace("bilevel_tf", "bt", 1)
    lines = [*_title(f"``{alias}``"), *_docstring(module), ""]
    for family, members in sorted(_families(module, names).items()):
        if family:
            lines += [*_title(family.replace("_", " ").capitalize(), "-")]
        lines += [".. list-table::", "   :widths: 30 70", ""]
        for name in members:
            first = _docstring(getattr(module, name))[0]
            lines += [f"   * - ``{alias}.{name}``", f"     - {first}"]
        lines += [""]
    return "\n".join([*lines, *_toctree(f"{module.__name__}.{n}" for n in names)])


def _families(module, names):
    """Names by the folder inside the namespace that they come from."""
    families = {}
    for name in names:
        source = getattr(getattr(module, name), "__module__", module.__name__)
        inside = source.removeprefix(f"{module.__name__}.").split(".")
        nested = source.startswith(f"{module.__name__}.") and len(inside) > 1
        families.setdefault(inside[0] if nested else "", []).append(name)
    return families


def _name_page(home, name, value):
    lines = _title(f"``{name}``")
    if inspect.isclass(value):
        directive, options = "autoclass", [":members:", ":inherited-members:"]
    elif callable(value):
        directive, options = "autofunction", []
    else:
        directive, options = "autodata", []
    lines += [f".. {directive}:: {home}.{name}", *(f"   {o}" for o in options), ""]
    return "\n".join(lines)


def list_examples():
    """The scripts and packages in the folder of examples."""
    packages = [path.parent for path in _EXAMPLES.glob("*/__init__.py")]
    return sorted([*_EXAMPLES.glob("*.py"), *packages])


def gallery():
    """The pages of the gallery, a dict from file names to their text."""
    pages, rows = {}, [".. list-table::", "   :widths: 25 75", ""]
    for path in list_examples():
        if path.is_dir():
            text = _read_docstring(path / "__init__.py")
            files = [file for file in path.glob("*.py") if file.name != "__init__.py"]
            body = [line for file in sorted(files) for line in _file_section(file)]
        else:
            text, body = _read_docstring(path), _include_code(path)
        page = [*_title(f"examples/{path.name}"), *text, "", *body]
        pages[path.stem] = "\n".join(page)
        rows += [f"   * - :doc:`{path.stem}`", f"     - {text[0]}"]
    pages["index"] = "\n".join(
        [
            *_title("Examples"),
            "Every script and package in ``examples/``. Those without a command in",
            "their text are helpers that others import.",
            "",
            *rows,
            "",
            *_toctree(path for path in pages),
        ]
    )
    return pages


def _read_docstring(path):
    module = ast.parse(path.read_text(encoding="utf-8"))
    return docstring_markup.to_rst(ast.get_docstring(module).splitlines())


def _file_section(path):
    title = _title(f"``{path.name}``", "-")
    return [*title, *_read_docstring(path), "", *_include_code(path)]


def _include_code(path):
    """Show a file without its docstring, which stands above it as text."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    return [
        f".. literalinclude:: ../../{path.relative_to(_DOCS.parent)}",
        "   :language: python",
        f"   :lines: {module.body[1].lineno}-",
        "",
    ]


def _docstring(value):
    lines = docstring_markup.to_rst((inspect.getdoc(value) or "").splitlines())
    return lines or [""]


def _title(text, mark="="):
    return [text, mark * (len(text) + 4), ""]


def _toctree(pages):
    return [".. toctree::", "   :hidden:", "", *(f"   {page}" for page in pages), ""]


def _write(folder, pages):
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        # Sphinx reads again what is newer.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _generate(app):
    _write(_DOCS / "reference", reference())
    _write(_DOCS / "gallery", gallery())


def _skip_foreign(app, what, name, obj, skip, options):
    """Leave out members that come from Keras or Python, and those for saving."""
    if name in ("get_config", "from_config"):
        return True
    function = getattr(obj, "fget", None) or getattr(obj, "__func__", obj)
    if isinstance(function, types.FunctionType):
        ours = function.__module__.startswith("bilevel_tf")
        return None if ours else True
    return None if inspect.isclass(obj) and what == "module" else True


def setup(app):
    """Generate the pages before any is read."""
    app.connect("builder-inited", _generate)
    app.connect("autodoc-skip-member", _skip_foreign)
    return {"parallel_read_safe": True}
