"""What the tree promises: arrows run down, rooms know only what they may."""

import ast
import pathlib

import pytest

import bilevel_tf

ROOT = pathlib.Path(bilevel_tf.__file__).parent
# From the bottom to the top; a room may import from rooms before it and from itself.
ROOMS = (
    "_keras",
    "_arguments",
    "_replicas",
    "_random",
    "autodiff",
    "scales",
    "hyperparameters",
    "regularizers",
    "losses",
    "layers",
    "optimizers",
    "network",
    "objectives",
    "methods",
    "posterior",
    "training",
    "search",
)


def modules():
    """Dotted names of all modules but the packages' `__init__`, with their paths."""
    paths = [p for p in ROOT.rglob("*.py") if p.name != "__init__.py"]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in paths}


def imports(path):
    """The modules of this library that a file imports, without the prefix.

    Imports for type hints alone, under `if TYPE_CHECKING`, do not count.
    """
    tree, found = ast.parse(path.read_text()), set()
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        found |= {n.removeprefix("bilevel_tf.") for n in names if "bilevel_tf." in n}
    return found


def room(name):
    return name.split(".")[0]


@pytest.mark.parametrize("name", modules())
def test_no_import_runs_up(name):
    rank = ROOMS.index(room(name))
    up = {i for i in imports(modules()[name]) if ROOMS.index(room(i)) > rank}
    assert not up, f"{name} imports {', '.join(sorted(up))} from above"


def test_every_room_is_in_the_list():
    assert {room(name) for name in modules()} <= set(ROOMS)


def test_no_circles():
    known = modules()
    edges = {n: {i for i in imports(p) if i in known} for n, p in known.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for other in sorted(edges[name]):
            visit(other)
        path.pop()
        done.add(name)

    for name in sorted(edges):
        visit(name)


def test_no_room_is_called_utils():
    assert not [n for n in modules() if "util" in n or "helper" in n]
