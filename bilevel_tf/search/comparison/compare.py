"""One call that compares fits with searches."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bilevel_tf._arguments import check_count, show
from bilevel_tf.hyperparameters.space import HyperparameterSpace
from bilevel_tf.methods.method import Method
from bilevel_tf.search.comparison.compared_run import ComparedRun, run_of_search
from bilevel_tf.search.comparison.comparison_result import ComparisonResult
from bilevel_tf.search.comparison.one_fit import fit_once, train_again
from bilevel_tf.search.journal import Journal
from bilevel_tf.search.progress_bar import make_bar
from bilevel_tf.search.search import Search
from bilevel_tf.search.setting import Setting, make_setting
from bilevel_tf.search.trial import to_number, to_plain
from bilevel_tf.training.bilevel_model import BilevelModel

# Added to the seed of a row for training from scratch, so that nothing is chosen by it.
RETRAINING_SEED = 1_000_000


def compare(
    build: Callable[[], BilevelModel] | BilevelModel,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any,
    test_data: Any = None,
    sample_weight: Any = None,
    methods: Mapping[str, Method | None] | None = None,
    searches: Mapping[str, Search] | None = None,
    seeds: Sequence[int] = (0,),
    epochs: int = 1,
    batch_size: int = 32,
    retrain: bool = False,
    directory: Any = None,
    workers: int = 1,
    verbose: Any = "auto",
) -> ComparisonResult:
    """Compare fits that tune by a method with searches, at equal settings.

    All train the same network on the same data with the same optimizer, from the same
    initial weights for equal seeds. A fit trains one network for `epochs` epochs; a
    search, as many trials as it says, of `epochs` epochs each. Seconds are those of
    everything: building, tracing, training and evaluation after every epoch.

    Args:
        build: Function without arguments that returns a new `BilevelModel`, compiled,
            with a new `HyperparameterSpace`. Its method does not matter; its
            `hyper_optimizer` is what all methods use. Or such a model, from whose
            config new ones are made.
        x: Training inputs: an array, `[n, ...]`, or a structure of arrays.
        y: Targets, `[n, ...]`. Defaults to `None`.
        validation_data: (x, y) or (x, y, sample_weight) of arrays, by which
            hyperparameters are judged.
        test_data: The same, of data that nothing is chosen by. Defaults to `None`.
        sample_weight: Weights of the training examples, `[n]`. Defaults to `None`.
        methods: Dict from names of rows to methods. `None` as a method stands for a fit
            at the initial hyperparameters. Defaults to `None`: no such rows.
        searches: Dict from names of rows to searches, such as `RandomSearch(30)`.
            Defaults to `None`: no such rows.
        seeds: The seeds, with each of which all rows are run. Defaults to one, 0.
        epochs: Number of epochs. Defaults to 1, as in Keras.
        batch_size: Number of examples in a batch. Defaults to 32, as in Keras.
        retrain: Whether to train from scratch at what every row has found, with the
            seeds 1,000,000 + `seeds`. Good final values are told from a good schedule
            so. Defaults to `False`.
        directory: Folder in which everything that is finished is written down. A
            comparison that was killed goes on from it; rows and seeds may be added.
            Defaults to `None`: nothing is written.
        workers: Number of processes in which trials are trained, as in the searches'
            `run`. Times are not comparable unless it is 1. Defaults to 1.
        verbose: 0 for no output, 1 for a progress bar, 2 for a line at the end.
            Defaults to "auto", which means 1.

    Returns:
        The `ComparisonResult`.

    Raises:
        TypeError: If methods or searches are not dicts of such objects, or whatever
            `run` of a search refuses.
        ValueError: If there are no rows or seeds, names occur twice, or a file in
            `directory` is of another comparison.

    Warns:
        RuntimeWarning: If a fit or a trial diverges. It counts as the worst.

    Example:

    >>> def build():
    ...     hp = bt.HyperparameterSpace(l2=bt.LogUniform(1e-5, 1.0, initial=1e-2))
    ...     inputs = keras.Input((3,))
    ...     outputs = bt.HyperDense(1, kernel_regularizer=bt.L2(hp["l2"]))(inputs)
    ...     model = bt.BilevelModel(inputs, outputs, hyperparameters=hp)
    ...     model.compile("sgd", loss="mse")
    ...     return model
    >>> x, y = np.random.default_rng(0).normal(size=(2, 20, 3))
    >>> result = bt.search.compare(
    ...     build,
    ...     x[:10],
    ...     y[:10, :1],
    ...     validation_data=(x[10:], y[10:, :1]),
    ...     methods={"T1T2": bt.methods.T1T2(train_steps=1)},
    ...     searches={"random": bt.search.RandomSearch(2)},
    ...     verbose=0,
    ... )
    >>> [row["row"] for row in result.table()]
    ['T1T2', 'random']
    """
    methods, searches = _check_rows(methods, searches)
    seeds = [check_count(seed, "seeds", 0) for seed in _list_seeds(seeds)]
    check_count(workers, "workers", 1)
    setting, model = make_setting(
        build,
        (x, y, sample_weight),
        validation_data,
        test_data,
        epochs=epochs,
        batch_size=batch_size,
    )
    comparing = _Comparing(setting, model.hyperparameters, directory, workers)
    for search in searches.values():
        search.plan(model.hyperparameters, epochs, 0, workers)
    bar = make_bar(len(seeds) * (len(methods) + len(searches)), verbose, "run")
    runs: dict[str, list[ComparedRun]] = {name: [] for name in [*methods, *searches]}
    for seed in seeds:
        for name in runs:
            if name in methods:
                run = comparing.fit(name, methods[name], seed)
            else:
                run = comparing.search(name, searches[name], seed)
            if retrain and not run.diverged:
                run.retrained = comparing.retrain(run)
            runs[name].append(run)
            bar.add(1)
    return ComparisonResult(runs, list(searches))


class _Comparing:
    """Runs rows, and finds those that are in the file.

    Args:
        setting: What is the same in all rows.
        space: The hyperparameters.
        directory: The folder, or `None`.
        workers: Number of processes for trials.
    """

    def __init__(
        self,
        setting: Setting,
        space: HyperparameterSpace,
        directory: Any,
        workers: int,
    ):
        self._setting, self._space, self._workers = setting, space, workers
        self._folder = None if directory is None else pathlib.Path(directory)
        self._journal: Journal | None = None
        if self._folder is not None:
            heading = {"comparison": space.names, **setting.describe()}
            self._journal = Journal(self._folder / "fits.jsonl", heading)

    def fit(self, name: str, method: Method | None, seed: int) -> ComparedRun:
        """Fit once, or find what the fit gave."""
        key = {"row": name, "seed": seed, "method": _describe_method(method)}
        found = self._find({"row": name, "seed": seed}, "method", key["method"])
        if found is not None:
            return ComparedRun.from_record(found["run"])
        run = fit_once(name, method, self._setting, seed)
        self._note({**key, "run": run.to_record()})
        return run

    def search(self, name: str, search: Search, seed: int) -> ComparedRun:
        """Run a search, or go on with it."""
        folder = None
        if self._folder is not None:
            plain = re.sub(r"[^\w.-]+", "-", name)
            folder = self._folder / f"{plain}-{seed}"
        setting = dataclasses.replace(self._setting, seed=seed)
        result = search.run_in(setting, self._space, folder, self._workers, 0)
        return run_of_search(name, seed, result)

    def retrain(self, run: ComparedRun) -> dict[str, Any]:
        """Train from scratch at what a run has found, or find what that gave."""
        key = {"retrained": run.row, "seed": run.seed}
        found = self._find(key, "values", run.values)
        if found is None:
            seed = run.seed + RETRAINING_SEED
            losses = train_again(run.values, self._setting, seed)
            found = {**key, "values": run.values, "losses": to_plain(losses)}
            self._note(found)
        losses, test = found["losses"], self._setting.test
        return {
            "validation": to_number(losses["validation"]),
            "test": None if test is None else to_number(losses["test"]),
        }

    def _note(self, record):
        if self._journal is not None:
            self._journal.add(record)
            self._journal.records.append(record)

    def _find(self, key, name, wanted):
        """The record of a key, in which something must be as it is now."""
        for record in self._journal.records if self._journal else []:
            if all(record.get(k) == value for k, value in key.items()):
                if record.get(name) == wanted:
                    return record
                raise ValueError(
                    f"'{self._folder}' has another row of this name. Give the row "
                    f"another name, or another `directory`. Received: {key}, with "
                    f"{name} {str(wanted)[:200]}, and {str(record.get(name))[:200]} in "
                    "the file"
                )
        return None


def _check_rows(methods, searches):
    """Return the rows as two dicts."""
    methods, searches = methods or {}, searches or {}
    for name, given, kind, example in (
        ("methods", methods, (Method, type(None)), "bilevel_tf.DeltaSTN()"),
        ("searches", searches, Search, "bilevel_tf.search.RandomSearch(30)"),
    ):
        sound = isinstance(given, Mapping) and all(
            isinstance(key, str) and isinstance(value, kind)
            for key, value in given.items()
        )
        if not sound:
            raise TypeError(
                f"`{name}` must be a dict from names of rows to objects such as "
                f"{example}. Received: {name}={show(given)}"
            )
    names = [*methods, *searches]
    if not names:
        raise ValueError(
            "`compare` needs `methods`, `searches` or both. Received: no rows"
        )
    if len(set(names)) < len(names):
        raise ValueError(
            "A method and a search must not have the same name. "
            f"Received: methods={list(methods)}, searches={list(searches)}"
        )
    return methods, searches


def _list_seeds(seeds):
    given = list(seeds) if isinstance(seeds, Sequence) else []
    if not given or isinstance(seeds, str) or len(set(given)) < len(given):
        raise ValueError(
            "`seeds` must be a list of different whole numbers. "
            f"Received: seeds={show(seeds)}"
        )
    return given


def _describe_method(method):
    """What tells a method from others in the file."""
    if method is None:
        return None
    return json.loads(json.dumps([type(method).__name__, method.get_config()]))
