"""Every example in a docstring runs and prints what it says.

An example may use `bt`, `keras`, `np` and `tf` and nothing else that it does not make
itself. Each starts from the same seed.
"""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import bilevel_tf as bt

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules():
    """All modules of the package."""
    found = pkgutil.walk_packages(bt.__path__, "bilevel_tf.")
    return [bt, *(importlib.import_module(module.name) for module in found)]


def examples():
    """All docstrings with examples, as `doctest.DocTest`s."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = {"bt": bt, "keras": keras, "np": np, "tf": tf}
    found = []
    for module in modules():
        globs = {**names, "__name__": module.__name__}
        found += finder.find(module, module.__name__, module, globs)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_example_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    failed = runner.run(example, out=said.append).failed
    assert not failed, "".join(said)
