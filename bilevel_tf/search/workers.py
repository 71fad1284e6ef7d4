"""Where trials are trained: in this process, or in several others."""

import concurrent.futures
import contextlib
import multiprocessing
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

from bilevel_tf.search.setting import Setting
from bilevel_tf.search.training import Trainer
from bilevel_tf.search.trial import Proposal, TrialResult

_trainer: Trainer | None = None


class Here:
    """Trains in this process, at once.

    Args:
        trainer: What trains.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer

    def submit(
        self, number: int, proposal: Proposal, values: Mapping[str, Any]
    ) -> concurrent.futures.Future:
        """Train a trial; return a future that is done."""
        future: concurrent.futures.Future = concurrent.futures.Future()
        future.set_result(self._trainer.train(number, proposal, values))
        return future


class Elsewhere:
    """Trains in other processes.

    They are started anew, not forked: TensorFlow does not survive a fork.

    Args:
        pool: The pool of processes, each of which has a trainer.
    """

    def __init__(self, pool: concurrent.futures.Executor):
        self._pool = pool

    def submit(
        self, number: int, proposal: Proposal, values: Mapping[str, Any]
    ) -> concurrent.futures.Future:
        """Send a trial to the next process that is free."""
        return self._pool.submit(_train, number, proposal, dict(values))


@contextlib.contextmanager
def start_workers(trainer: Trainer, workers: int) -> Iterator[Here | Elsewhere]:
    """Start processes for trials, and end them after the block.

    Args:
        trainer: What trains in this process.
        workers: Number of processes; 1 for this one.

    Raises:
        ValueError: If the function that builds the model cannot be sent to another
            process.
    """
    if workers == 1:
        yield Here(trainer)
        return
    _check_sendable(trainer.setting)
    pool = concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(trainer.setting,),
    )
    try:
        yield Elsewhere(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_sendable(setting):
    try:
        pickle.dumps(setting.build)
    except Exception as error:
        raise ValueError(
            "With `workers` above 1, `build` must be a function that other processes "
            "can import: define it at the top of a module, not inside a function, and "
            f"not as a lambda. Received: build={setting.build!r} ({error})"
        ) from error


def _prepare(setting: Setting) -> None:
    """Make the trainer of a new process."""
    global _trainer
    _trainer = Trainer(setting)


def _train(number: int, proposal: Proposal, values: Mapping[str, Any]) -> TrialResult:
    assert _trainer is not None
    return _trainer.train(number, proposal, values)
