"""Malformed inputs, each with the error that a user sees.

Each module beside this one has a list `ROWS`, for one part of the library.
"""

import importlib
import pkgutil

import pytest

from tests import malformed
from tests.malformed.row import Row

MODULES = [
    importlib.import_module(f"{malformed.__name__}.{found.name}")
    for found in pkgutil.iter_modules(malformed.__path__)
    if found.name != "row" and not found.name.startswith("test_")
]
ROWS = [row for module in MODULES for row in module.ROWS]


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_the_error_says_what_would_be_right(row: Row):
    with pytest.raises(row.error) as caught:
        row.do()
    message = str(caught.value)
    assert row.says
    for part in row.says:
        assert part in message
    # A dump of a configuration or an array buries the sentence that helps.
    assert len(message) < 1000
