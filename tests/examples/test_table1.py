"""The table in small: problems, rows, results, searches, summary and figures."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from table1 import __main__ as table1
from table1 import data_sets, expressions, searches, training
from table1.measures import final, mean_and_error, reach
from table1.problems import PROBLEMS
from table1.results import Results
from table1.rows import ROWS, Run
from table1.summary import gather_rows, summarize

import bilevel_tf as bt

SMALL = ["--problem=digits-decay", "--epochs=4", "--scale=0.4"]


def run(folder, *arguments):
    table1.main(["run", *SMALL, f"--output={folder}", *arguments])
    return Results(folder, "digits-decay")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table1")
    arguments = ["--rows", "fixed", "Δ-STN", "random", "--search-points=2"]
    return run(folder, *arguments, "--retrain", "--seeds", "0-1", "--search-seeds=1")


def trained(results):
    """The records of runs that are no searches."""
    return [r for r in results.read().values() if r["run"].points is None]


class TestRuns:
    def test_what_is_logged(self, results):
        for record in trained(results):
            assert set(training.LOGGED) < set(record)
            assert record["epoch"] == [1, 2, 3, 4]
            assert record["steps"] == [4, 8, 12, 16]
            assert np.isfinite(record["val_loss"] + record["test_loss"]).all()
            for key in ("seconds", "cpu_seconds"):
                assert (np.diff([0.0, *record[key]]) >= 0).all()

    def test_only_methods_move_hyperparameters(self, results):
        for record in trained(results):
            first, *_, last = record["hyperparameters"]
            assert (first != last) == (record["run"].method is not None)

    def test_logged_losses_are_of_the_network(self, results):
        """A plain network, trained by hand with the same seed, has the same losses."""
        problem = PROBLEMS["digits-decay"]
        data = problem.load(0.4, 0)
        keras.utils.set_random_seed(1)
        model = problem.make_model((64,), 0.4).to_keras()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.02, momentum=0.9), loss)
        model.fit(*data.train, batch_size=30, epochs=4, verbose=0)
        (record,) = (
            record
            for record in results.read().values()
            if (record["run"].row, record["run"].seed) == ("fixed", 1)
        )
        for key, (x, y) in (("val_loss", data.valid), ("test_loss", data.test)):
            expected = float(loss(y, model.predict(x, verbose=0)))
            assert record[key][-1] == pytest.approx(expected, rel=1e-5)

    def test_what_is_there_is_not_trained_again(self, results, monkeypatch):
        monkeypatch.setattr(training, "train", None)
        before = results.path.read_bytes()
        run(results.path.parent, "--rows", "fixed", "Δ-STN", "--seeds", "0-1")
        assert results.path.read_bytes() == before

    def test_retrained_points_have_the_last_values(self, results):
        records = results.read().values()
        tuned = {r["run"].seed: r for r in records if r["run"].row == "Δ-STN"}
        points = {r["run"].seed: r for r in records if r["run"].of == "Δ-STN"}
        assert set(tuned) == set(points) == {0, 1}
        for seed, record in points.items():
            assert dict(record["run"].initial) == tuned[seed]["hyperparameters"][-1]
            kept = record["hyperparameters"][-1]
            assert kept == pytest.approx(dict(record["run"].initial))

    def test_settings_reach_the_fit(self, tmp_path):
        arguments = ["--method", "DeltaSTN(warmup_epochs=0, train_steps=1)"]
        arguments += ["--hyper-optimizer=SGD(0.5)", "--hyper-learning-rate=0.25"]
        arguments += ["--sigma=0.5", "--hold-sigma", "--initial", "decay_1=0.01"]
        records = run(tmp_path, *arguments, "--outer-batch-size=7").read()
        (record,) = records.values()
        assert all(
            sigma == pytest.approx(0.5)
            for entry in record["sigma"]
            for sigma in entry.values()
        )
        label = "DeltaSTN(warmup_epochs=0, train_steps=1), SGD(0.5), σ held, rate 0.25"
        assert record["run"].label == f"{label}, outer batch 7, σ₀ 0.5, λ₀ 0.01"
        problem = PROBLEMS["digits-decay"]
        model = problem.make_model((64,), 0.1)
        training.compile_model(model, problem, record["run"])
        assert float(model.hyper_optimizer.learning_rate) == 0.25
        assert model.method.train_steps == 1
        assert model.method.entropy_weight == 1e-3

    @pytest.mark.parametrize(
        "text", ["SGD(0.5)", "Adam(CosineDecay(0.5, 10), epsilon=1e-9)"]
    )
    def test_another_learning_rate(self, text):
        optimizer = expressions.make(text, "optimizer")
        other = training.with_rate(optimizer, 0.25)
        assert float(other.learning_rate) == 0.25
        assert float(optimizer.learning_rate) == 0.5
        ours, theirs = (o.get_config() for o in (other, optimizer))
        assert {**ours, "learning_rate": 0} == {**theirs, "learning_rate": 0}

    @pytest.mark.parametrize(
        "arguments", [["--initial", "nothing=1"], ["--point", "decay_1=0.1"]]
    )
    def test_values_of_other_hyperparameters_are_refused(self, arguments, tmp_path):
        with pytest.raises(ValueError, match="Received"):
            run(tmp_path, "--rows", "fixed", *arguments)

    def test_a_run_that_diverges_is_kept_as_failed(self, tmp_path, monkeypatch):
        def diverge(*args, **kwargs):
            raise FloatingPointError("no number")

        monkeypatch.setattr(bt.BilevelModel, "fit", diverge)
        (record,) = run(tmp_path, "--rows", "STN").read().values()
        assert record["error"] == "no number"
        assert final(record, "val_loss") == math.inf
        assert "1 (1 failed)" in summarize(Results(tmp_path, "digits-decay"))


def test_a_long_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    problem = dataclasses.replace(PROBLEMS["digits-decay"], long=True)
    monkeypatch.setitem(PROBLEMS, "digits-decay", problem)
    data = problem.load(0.1, 0)
    tuned = Run("digits-decay", "Δ-STN", 0, 6, 0.1, method="DeltaSTN(train_steps=1)")
    whole = training.train(tuned, data, tmp_path / "whole")

    class Killed(Exception):
        pass

    begin = training.Log.on_epoch_begin

    def stop(self, epoch, logs=None):
        begin(self, epoch, logs)
        if epoch == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training.Log, "on_epoch_begin", stop)
        with pytest.raises(Killed):
            training.train(tuned, data, tmp_path)
    record = training.train(tuned, data, tmp_path)
    assert record["epoch"] == whole["epoch"] == [1, 2, 3, 4, 5, 6]
    assert (np.diff(record["seconds"]) >= 0).all()
    np.testing.assert_allclose(record["val_loss"][:4], whole["val_loss"][:4], rtol=1e-5)
    assert record["hyperparameters"][4] != record["hyperparameters"][3]
    training.forget_unfinished(tuned, tmp_path)
    assert not list((tmp_path / "unfinished").iterdir())


class TestSearches:
    @staticmethod
    def record(losses, seeds):
        trials = [
            {"values": {"rate": float(i)}, "validation": [9.0, 9.0, *[loss] * 3]}
            for i, loss in enumerate(losses)
        ]
        run = Run("digits-decay", "random", 0, 5, points=12, point_seeds=seeds)
        return {"run": run, "trials": trials}

    @pytest.mark.parametrize(("seeds", "equal", "ten"), [(2, 0, 1), (1, 1, 11)])
    def test_validation_loss_chooses_within_the_budget(self, seeds, equal, ten):
        # 2.2 and 22 trainings.
        losses = [3.0, 2.0, math.inf, *[4.0] * 8, 1.0]
        chosen = searches.choose(self.record(losses, seeds))
        assert chosen == {"equal compute": equal, "ten times": ten, "all points": 11}

    def test_the_chosen_points_are_trained_on_all_seeds(self, results):
        records = results.read()
        found = searches.read_searches(records)["random"]
        assert len(found["trials"]) == 2
        assert searches.count_trainings(found) == 2
        for budget in searches.BUDGETS:
            rows = gather_rows(records)[f"random, {budget}"]
            assert set(rows) == {0, 1}

    def test_a_trial_is_a_run_at_its_values(self, results):
        """Search and point of one seed differ by nothing but rounding."""
        records = results.read()
        found = searches.read_searches(records)["random"]
        index = searches.choose(found)[searches.WHOLE]
        point = gather_rows(records)[f"random, {searches.WHOLE}"][0]
        expected = found["trials"][index]["validation"]
        np.testing.assert_allclose(point["val_loss"], expected, rtol=1e-3)

    def test_a_search_that_was_stopped_goes_on(self, results, tmp_path):
        data = PROBLEMS["digits-decay"].load(0.4, 0)
        sizes = {"points": 2, "point_seeds": 1}
        run = Run("digits-decay", "random", 0, 4, 0.4, **sizes)
        whole = searches.search(run, data, tmp_path)
        (path,) = (tmp_path / "unfinished").glob("*/search.jsonl")
        heading, first, _ = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(heading + first)
        again = searches.search(run, data, tmp_path)
        values = [[t["values"] for t in found["trials"]] for found in (again, whole)]
        assert values[0] == values[1]
        assert again["trials"][0]["seconds"] == whole["trials"][0]["seconds"]
        assert again["trials"][1]["seconds"] != whole["trials"][1]["seconds"]

    def test_a_search_traces_once(self):
        """An epoch takes 1 s, tracing 3 s."""
        point = {"cpu_seconds": [4.0, 5.0, 6.0], "steps": [10, 20, 30]}
        record = self.record([1.0] * 5, seeds=2)
        cost = searches.search_cost(record, "cpu_seconds", [point, point])
        assert cost == 10 * 3 + 3
        assert searches.search_cost(record, "steps", [point]) == 300

    def test_by_a_gaussian_process(self):
        assert searches.SEARCHES["bayes"](3).trials == 3

    def test_parts_share_the_runs(self, tmp_path, monkeypatch):
        record = {"error": "none was trained"}
        monkeypatch.setattr(training, "train", lambda *arguments: record)
        arguments = ["--rows", "fixed", "--seeds", "0-3"]
        for part, seeds in (("1/2", {1, 3}), ("0/2", {0, 1, 2, 3})):
            records = run(tmp_path, *arguments, f"--part={part}").read().values()
            assert {record["run"].seed for record in records} == seeds


class TestSummary:
    def test_tables(self, results):
        text = summarize(results)
        for label in ("fixed", "Δ-STN", "random, equal compute", "random, all points"):
            assert f"| {label} | 2 |" in text
        assert "Paired differences from “random, all points”" in text
        assert "as a share of its 2 points with 1 seeds each" in text

    def test_the_numbers_are_those_of_the_records(self, results):
        fixed = gather_rows(results.read())["fixed"]
        losses = [np.mean(fixed[seed]["test_loss"][-3:]) for seed in (0, 1)]
        error = abs(losses[0] - losses[1]) / 2
        assert f"{np.mean(losses):.4f} ± {error:.4f}" in summarize(results)

    def test_figures(self, results, tmp_path):
        folder = results.path.parent
        table1.main(["figures", "--problem=digits-decay", f"--output={folder}"])
        names = {path.name for path in folder.glob("*.png")}
        stem = "digits-decay_4_epochs_scale_0.4"
        assert names == {f"{stem}_loss.png", f"{stem}_schedule.png"}

    def test_reach_smooths(self):
        record = {"val_loss": [4.0, 1.0, 4.0, 1.0, 1.0], "steps": [1, 2, 3, 4, 5]}
        assert reach(record, 2.0, "steps") == 4
        assert reach(record, 0.5, "steps") is None

    def test_mean_and_error(self):
        assert mean_and_error([1.0, 3.0]) == (2.0, 1.0)
        assert mean_and_error([1.0, math.inf])[0] == math.inf


class TestExpressions:
    def test_nested_calls(self):
        text = "Adam(CosineDecay(0.02, decay_steps=10), epsilon=1e-8)"
        optimizer = expressions.make(text, "optimizer")
        assert optimizer.epsilon == 1e-8
        assert float(optimizer.learning_rate) == pytest.approx(0.02)

    def test_a_call_with_all_arguments(self):
        method = expressions.make("STN(2)", "method")
        text = expressions.spell_out("STN(2)", "method")
        assert "train_steps=2" in text
        assert "valid_steps=1" in text
        assert expressions.make(text, "method").get_config() == method.get_config()

    def test_defaults_give_way(self):
        defaults = {"train_steps": 5, "warmup_epochs": 3, "entropy_weight": 0.1}
        method = expressions.make("STN(2)", "method", **defaults)
        assert (method.train_steps, method.warmup_epochs) == (2, 3)
        # This class has no entropy.
        assert expressions.make("T1T2()", "method", **defaults).train_steps == 5

    @pytest.mark.parametrize(
        "text",
        [
            "DeltaSTN",
            "DeltaSTN(",
            "DeltaSTN(x for x in y)",
            "__import__('os').system('true')",
            "DeltaSTN(**{'train_steps': 1})",
            "DeltaSTN(train_steps=1 + int('2'))",
            "keras.optimizers.SGD(0.1)",
            "Nothing()",
        ],
    )
    def test_refused(self, text):
        with pytest.raises(ValueError, match="Received"):
            expressions.make(text, "method")


@pytest.mark.parametrize("row", ROWS)
def test_rows_say_what_the_papers_do(row):
    settings = ROWS[row]
    if settings.method is None:
        return
    method = expressions.make(settings.method, "method")
    names = {"STN": "STN", "centered": "CenteredSTN"}
    assert type(method).__name__ == names.get(row, "DeltaSTN")
    if settings.hyper_optimizer is not None:
        optimizer = expressions.make(settings.hyper_optimizer, "optimizer")
        assert float(optimizer.learning_rate) == pytest.approx(0.01)


class TestProblems:
    @pytest.mark.parametrize(
        "name", ["diabetes", "cnn-slice", "fashion-slice", "mnist"]
    )
    def test_networks_fit_their_data(self, name, monkeypatch):
        rng = np.random.default_rng(0)

        def images(count):
            pixels = rng.integers(0, 256, (count, 28, 28), dtype="uint8")
            return pixels, rng.integers(0, 10, count)

        for module in (keras.datasets.mnist, keras.datasets.fashion_mnist):
            monkeypatch.setattr(module, "load_data", lambda: (images(400), images(90)))
        problem = PROBLEMS[name]
        data = problem.load(0.05, 0)
        model = problem.make_model(
            data.train[0].shape[1:], 0.05, perturbation_scale=0.5
        )
        outputs = 1 if name == "diabetes" else 10
        for x, y in data:
            assert len(x) == len(y)
            assert model(x[:2]).shape == (2, outputs)
        assert abs(data.train[0].mean()) < 1.5
        assert set(model.hyperparameters.perturbation_scales().values()) == {0.5}

    def test_pooling(self):
        images = np.arange(16.0).reshape(1, 4, 4)
        expected = [[2.5, 4.5], [10.5, 12.5]]
        np.testing.assert_allclose(data_sets.halve(images)[0] * 255, expected)

    def test_splits_differ_and_share_nothing(self):
        parts = data_sets.load_small_digits(1.0, 0)
        other = data_sets.load_small_digits(1.0, 1)
        assert [len(x) for x, _ in parts] == [300, 300, 1197]
        assert not np.array_equal(parts.train[1], other.train[1])
        mean = parts.train[0].mean(0)
        np.testing.assert_allclose(mean, 0.0, atol=1e-5)
