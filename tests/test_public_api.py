"""What every public name owes its users: words, types and an example."""

import enum
import importlib
import importlib.resources
import inspect
import re
import types

import pytest

import bilevel_tf as bt

NAMESPACES = [
    bt,
    *(
        value
        for name, value in vars(bt).items()
        if isinstance(value, types.ModuleType) and name in bt.__all__
    ),
]

# Keras says what these do.
KNOWN = {"__init__", "build", "call", "from_config", "get_config"}

# Results are read and not made by users: their fields are under "Attributes:".
RESULTS = ("Result", "Hypergradient", "Solution")


def public_names():
    """Dict from the full name of every public class and function to itself."""
    found = {}
    for namespace in NAMESPACES[::-1]:
        for name in namespace.__all__:
            value = getattr(namespace, name)
            if not isinstance(value, types.ModuleType):
                found.setdefault(id(value), (f"{namespace.__name__}.{name}", value))
    return dict(found.values())


def is_result(value):
    """Whether this is a class of what functions return, or of its constants."""
    if not inspect.isclass(value):
        return False
    return issubclass(value, enum.Enum) or value.__name__.endswith(RESULTS)


def parameters(value):
    """The parameters of a class's constructor or of a function.

    Those that a constructor of this library passes on to the one before it count as
    well. `**unknown` is there to be refused by name.
    """
    if not inspect.isclass(value):
        return [*inspect.signature(value).parameters.values()]
    found = []
    for base in value.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        own = [*inspect.signature(base.__init__).parameters.values()][1:]
        found += [p for p in own if p.name != "unknown"]
        last = own[-1] if own else None
        passed_on = last is not None and last.kind == last.VAR_KEYWORD
        passed_on = passed_on and last.name != "unknown"
        if not passed_on or not base.__module__.startswith("bilevel_tf.methods"):
            break
        found = [p for p in found if p.kind != p.VAR_KEYWORD]
    return found


def documented(docstring):
    """Dict from the entries under "Args:" to their text."""
    section = re.search(
        r"^( *)Args:\n(.*?)(?=^\1\S|\Z)", docstring or "", re.DOTALL | re.MULTILINE
    )
    if not section:
        return {}
    entries, indent = {}, len(section[1]) + 4
    entry = re.compile(
        rf"^ {{{indent}}}(\*{{0,2}}\w+(?:, \*{{0,2}}\w+)*):", re.MULTILINE
    )
    starts = [*entry.finditer(section[2])]
    ends = [m.start() for m in starts[1:]] + [len(section[2])]
    for match, end in zip(starts, ends, strict=True):
        for name in match[1].split(", "):
            entries[name.lstrip("*")] = section[2][match.end() : end].strip()
    return entries


def missing_words(value):
    """What a docstring lacks, as a list of sentences."""
    docstring = inspect.getdoc(value) if _has_own_docstring(value) else None
    if not docstring:
        return ["It has no docstring."]
    problems = []
    if not is_result(value):
        entries = documented(docstring)
        for parameter in parameters(value):
            if not entries.get(parameter.name):
                problems.append(f"`{parameter.name}` is not under Args.")
    if re.search(r"Args: see|:\s+(See|As) `\w+`\.?$", docstring, re.MULTILINE):
        problems.append("It refers to another docstring for its arguments.")
    if ">>>" not in docstring and not is_result(value):
        problems.append("It has no example.")
    return problems


def _has_own_docstring(value):
    return not inspect.isclass(value) or "__doc__" in vars(value)


def functions_of(value):
    """The public functions that a class or function is, by name."""
    if not inspect.isclass(value):
        return {"": value}
    found = {}
    for name, member in vars(value).items():
        function = getattr(member, "__func__", getattr(member, "fget", member))
        public = not name.startswith("_") or name == "__init__"
        if public and isinstance(function, types.FunctionType):
            found[name] = function
    return found


def missing_types(value):
    """Which public signatures lack a type, as a list of sentences."""
    problems = []
    for name, function in functions_of(value).items():
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            bare = parameter.annotation is parameter.empty
            if bare and parameter.name not in ("self", "cls"):
                problems.append(f"`{parameter.name}` of `{name}` has no type.")
        if signature.return_annotation is signature.empty and name != "__init__":
            problems.append(f"`{name}` has no type of what it returns.")
    return problems


def undescribed_methods(value):
    """Public methods without a docstring that no base class has described."""
    if not inspect.isclass(value):
        return []
    return [
        f"`{name}` has no docstring."
        for name, function in functions_of(value).items()
        if name not in KNOWN and not function.__doc__ and not _inherited(value, name)
    ]


def _inherited(value, name):
    return any(getattr(getattr(b, name, None), "__doc__", 0) for b in value.__mro__[1:])


NAMES = public_names()


def expect_nothing(name, problems):
    """Fail with the problems."""
    assert not problems, f"{name}: " + " ".join(problems)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_has_arguments_and_an_example(name):
    expect_nothing(name, missing_words(NAMES[name]))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_have_types(name):
    expect_nothing(name, missing_types(NAMES[name]))


@pytest.mark.parametrize("name", NAMES)
def test_methods_have_docstrings(name):
    expect_nothing(name, undescribed_methods(NAMES[name]))


@pytest.mark.parametrize("namespace", NAMESPACES, ids=lambda m: m.__name__)
def test_namespaces_say_what_is_public(namespace):
    names = namespace.__all__
    assert names == sorted(names, key=_isort_key)
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(namespace, name)
    assert importlib.import_module(namespace.__name__) is namespace


def _isort_key(name):
    """Constants, classes, the rest: the order that ruff keeps."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name


def test_the_package_is_typed_and_says_its_version():
    root = importlib.resources.files(bt)
    assert root.joinpath("py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", bt.__version__)
