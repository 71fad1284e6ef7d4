"""The hypergradient benchmark runs with and without peers; times are not asserted."""

import random
import re

import numpy as np
import pytest

from benchmarks.hypergradient import __main__ as benchmark
from benchmarks.hypergradient import in_tensorflow, memory, products, worker, workload

PEERS = {
    "jax": ["JAX, jvp of the gradient", "JAX, linearised once"],
    "torch": ["PyTorch, double backward"],
}


def rows(lines):
    """Cells of every table row by their first, per table."""
    tables = [[]]
    for line in lines:
        cells = [c.strip() for c in line.split("|")[1:-1]]
        if cells:
            tables[-1].append(cells)
        elif tables[-1]:
            tables.append([])
    return [{row[0]: row[1:] for row in table} for table in tables if table]


def is_time(cell):
    return re.fullmatch(r"\d+\.\d ms", cell) is not None


def times_of(table):
    """Names of the rows with a time."""
    return [name for name, cells in table.items() if is_time(cells[0])]


@pytest.mark.slow
def test_quick_report_has_all_rows():
    arguments = ["--quick", "--rounds", "1", "--clock", "wall", "processor"]
    lines = benchmark.speed_lines(benchmark.parse(arguments))
    assert "2 threads" in lines[0]
    assert "/" not in lines[0]
    wall, _, processor, _, differences = rows(lines)
    assert all(map(is_time, wall["bilevel_tf"] + processor["bilevel_tf, XLA"]))
    for package, names in PEERS.items():
        if f"{package} is not installed and is left out." in lines:
            assert not set(names) & set(wall)
            continue
        for name in names:
            assert is_time(wall[name][0]), name
    names = set(times_of(wall)) - {workload.FLOOR}
    cells = [c for name in names for c in differences[name] if c != "–"]
    assert max(map(float, cells)) < 1e-4, differences


def test_a_peer_without_its_framework_is_left_out(monkeypatch):
    monkeypatch.setitem(worker.PACKAGES, "in_jax", ("no_such_package", "numpy"))
    found = worker.versions(worker.PACKAGES["in_jax"])
    assert found["no_such_package"] is None
    assert found["numpy"] == np.__version__
    lines = benchmark.absent(found)
    assert lines == ["no_such_package is not installed and is left out."]
    assert "no_such_package" not in benchmark.machine(benchmark.parse([]), found)


def test_a_row_of_a_variant_without_a_solver_has_gaps():
    times = {
        (name, "gradient", "wall"): [0.001, 0.003, 0.002]
        for name in (*benchmark.OURS, "peer")
    }
    names = dict.fromkeys((*benchmark.OURS, "peer"))
    (table,) = rows(benchmark.time_table(names, times, "wall", benchmark.parse([])))
    assert table["peer"] == ["2.0 ms", "–", "–"]
    (table,) = rows(benchmark.ratio_table(names, times, "wall"))
    assert table["bilevel_tf / peer"] == ["1.00", "–", "–"]


def test_ratio_is_the_median_within_rounds():
    assert benchmark.ratio([2.0, 9.0, 30.0], [1.0, 3.0, 10.0]) == "3.00"


def test_difference_is_relative():
    vector = np.array([3.0, 4.0], "float32")
    np.testing.assert_allclose(benchmark.difference(1.5 * vector, vector), 0.5)


def test_a_round_times_every_call_by_both_clocks():
    calls = {"variant": {"gradient": lambda: None, "cg": lambda: None}}
    seconds = worker.one_round(calls, random.Random(0))
    assert set(seconds["variant"]) == {"gradient", "cg"}
    assert set(seconds["variant"]["cg"]) == set(worker.CLOCKS)


def test_results_are_one_float32_vector():
    call = lambda: [np.ones((2, 2), "float32"), np.zeros(3, "float32")]  # noqa: E731
    found = np.frombuffer(worker.results({"cg": call})["cg"], "float32")
    np.testing.assert_array_equal(found, [1, 1, 1, 1, 0, 0, 0])


def test_every_call_gives_a_vector_as_long_as_the_weights():
    found = worker.results(in_tensorflow.calls(workload.TINY, jit=False))
    size = sum(w.size for w in workload.TINY.weights)
    assert set(found) == set(workload.KINDS)
    for vector in found.values():
        vector = np.frombuffer(vector, "float32")
        assert vector.shape == (size,)
        assert np.isfinite(vector).all()


def test_workload_is_the_one_of_the_tables():
    assert "269,322 hyperparameters" in workload.FULL.title
    shapes = [w.shape for w in workload.TINY.weights]
    assert shapes == [h.shape for h in workload.TINY.hyperparameters]


@pytest.mark.parametrize("name", memory.METHODS)
def test_memory_grows(name):
    assert memory.growth(name, 3, memory.TINY) >= 0


@pytest.mark.slow
def test_memory_of_a_child():
    assert memory.growth_of_child("DrMAD", 2, memory.TINY) >= 0


@pytest.mark.slow
def test_memory_of_forward_mode_does_not_depend_on_the_steps():
    few, many = (
        memory.growth_of_child("ForwardMode", steps, memory.FULL)
        for steps in (10, 1000)
    )
    # A state and its tangents are 3.6 MiB.
    assert many - few < 8


@pytest.mark.parametrize(("kind", "count"), [("cg", 10), ("neumann", 20)])
def test_no_product_of_the_floor_is_dropped_or_shared(kind, count):
    """Counted in the graph that runs: 2 + 6 + 6 for a Hessian, 2 + 3 + 3 otherwise."""
    from tensorflow.python.eager import context

    call = products.calls(workload.TINY)[kind]
    context.context().enable_run_metadata()
    context.context().enable_graph_collection()
    try:
        results = call()
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
        context.context().disable_run_metadata()
    partitions = [g for graph in graphs for g in graph.partition_graphs]
    ran = sum("MatMul" in n.op for g in partitions for n in g.node)
    assert ran == 14 * count + 16
    assert all(np.isfinite(x).all() for x in results)
