"""The benchmark of memory reports every kind; its figures are not asserted."""

import re

from benchmarks import memory_growth


def test_report_has_a_figure_for_every_kind(monkeypatch):
    fitted = []
    monkeypatch.setattr(memory_growth.gc, "collect", lambda: 0)
    monkeypatch.setattr(
        memory_growth, "fit_once", lambda name, width: fitted.append((name, width))
    )
    options = memory_growth.parse(["--models", "1"])
    lines = memory_growth.report(options)
    kinds = [memory_growth.PLAIN, *memory_growth.METHODS, memory_growth.POSTERIOR]
    assert [line.split("|")[1].strip() for line in lines[2:]] == kinds
    assert all(re.fullmatch(r".*\| -?\d+\.\d\d \|", line) for line in lines[2:])
    assert fitted == [(kind, 8) for kind in kinds]


def test_kinds_can_be_chosen():
    options = memory_growth.parse(["--models", "1", "--kinds", "DeltaSTN()"])
    assert len(memory_growth.report(options)) == 3
