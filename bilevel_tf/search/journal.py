"""A file of finished trials, one line each, from which a search goes on."""

import json
import pathlib
from typing import Any

FORMAT = "bilevel_tf search 1"


class Journal:
    """Lines of JSON: first what was searched for and how, then finished work.

    A line is written at once and whole. What a killed process has left of a line is cut
    off when the file is opened again.

    Args:
        path: The file. Its folder is made if it is not there.
        heading: What must be the same for the file to be gone on with: a dict for
            JSON.

    Raises:
        ValueError: If the file is of other work, or damaged in the middle.

    Attributes:
        records: The records that were in the file.
    """

    def __init__(self, path: pathlib.Path, heading: dict[str, Any]):
        self.path = path
        # As it looks when it has been read.
        heading = json.loads(json.dumps({"format": FORMAT, **heading}))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.records = self._read(heading) if path.exists() else []
        if not path.exists() or path.stat().st_size == 0:
            self._append(heading)

    def add(self, record: dict[str, Any]) -> None:
        """Write a record."""
        self._append(record)

    def _append(self, record):
        line = json.dumps(record, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _read(self, heading):
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        records = [self._parse(*line) for line in enumerate(whole.splitlines(), 1)]
        if records:
            self._check_heading(records[0], heading)
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        return records[1:]

    def _parse(self, number, line):
        try:
            record = json.loads(line)
            if isinstance(record, dict):
                return record
        except ValueError:
            pass
        shown = line[:60].decode(errors="replace")
        raise ValueError(
            f"Line {number} of '{self.path}' is not what a search writes. Give another "
            f"`directory`, or remove the file. Received: {shown!r}"
        )

    def _check_heading(self, found, heading):
        names = [n for n in {**heading, **found} if found.get(n) != heading.get(n)]
        if not names:
            return
        shown = "; ".join(
            f"{name}={_shorten(heading.get(name))}, and {_shorten(found.get(name))} in "
            "the file"
            for name in names[:3]
        )
        raise ValueError(
            f"'{self.path}' is of another search, which cannot be gone on with: "
            "give another `directory`, or the same arguments and data as then. "
            f"Received: {shown}"
        )


def _shorten(value):
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
