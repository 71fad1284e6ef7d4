"""Results as lines of JSON, one per run."""

import json
import os

from .rows import read_run


class Results:
    """The results of a problem, `<folder>/<problem>.jsonl`.

    Several processes may append at the same time.

    Args:
        folder: Folder of the results.
        problem: Name of the problem.
    """

    def __init__(self, folder, problem):
        self.path = folder / f"{problem}.jsonl"

    def read(self):
        """Return the records by the keys of their runs, in the order of the file."""
        if not self.path.exists():
            return {}
        with self.path.open(encoding="utf-8") as file:
            records = [json.loads(line) for line in file if line.endswith("}\n")]
        for record in records:
            record["run"] = read_run(record["run"])
        return {record["run"].key: record for record in records}

    def append(self, run, record):
        """Append the record of a run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(
            {"run": json.loads(run.key), **record}, ensure_ascii=False
        ).encode()
        # One write, so that lines of several processes do not mix.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(self.path, flags, 0o644)
        try:
            os.write(descriptor, line + b"\n")
        finally:
            os.close(descriptor)
