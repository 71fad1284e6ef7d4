"""The loop of a search: propose, train, note, until trials or budget are used up."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

from bilevel_tf.search.plan import Plan, Turn
from bilevel_tf.search.setting import Setting
from bilevel_tf.search.trial import Past, Proposal, TrialResult


class Loop:
    """Runs the trials of a plan.

    Args:
        plan: What proposes trials.
        setting: What is the same in all trials.
        most: Number of trials, or `None` for as many as the plan has.
        budget: Number of training steps of all trials together, or `None`.
        finished: The trials that are finished already, by number.
        note: Function that is called with every trial that is finished now.

    Attributes:
        exhausted: Whether the plan has nothing more to propose.
    """

    def __init__(
        self,
        plan: Plan,
        setting: Setting,
        most: int | None,
        budget: int | None,
        finished: dict[int, TrialResult],
        note: Callable[[TrialResult], None],
    ):
        self._plan, self._setting, self._note = plan, setting, note
        self._most, self._budget = most, budget
        self._finished = finished
        self._proposed: list[Proposal] = []
        self._steps = 0
        self._pending: dict[concurrent.futures.Future, int] = {}
        self.exhausted = False

    def run(self, executor: Any, workers: int) -> list[TrialResult]:
        """Run all trials, and return them in the order of their numbers.

        Args:
            executor: Has `submit`, which trains a trial and returns a future.
            workers: Number of trials that are trained at once.
        """
        while True:
            self._fill(executor, workers)
            if not self._pending:
                numbers = range(len(self._proposed))
                return [self._finished[number] for number in numbers]
            done, _ = concurrent.futures.wait(
                self._pending, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in sorted(done, key=self._pending.__getitem__):
                number = self._pending.pop(future)
                self._finished[number] = future.result()
                self._note(self._finished[number])

    def _fill(self, executor, workers):
        """Propose trials while workers are free."""
        while len(self._pending) < workers:
            number = len(self._proposed)
            if self._most is not None and number >= self._most:
                return
            known = self._finished.get(number)
            proposal = known.proposal if known else self._propose(number)
            if isinstance(proposal, Turn):
                self.exhausted = proposal is Turn.END
                return
            steps = self._setting.count_steps(proposal)
            if self._budget is not None and self._steps + steps > self._budget:
                return
            self._proposed.append(proposal)
            self._steps += steps
            if known is None:
                values = self._plan.values(proposal)
                self._pending[executor.submit(number, proposal, values)] = number

    def _propose(self, number):
        history = []
        for earlier, proposal in enumerate(self._proposed):
            trial = self._finished.get(earlier)
            history.append(Past(proposal, None if trial is None else trial.score))
        return self._plan.propose(number, history)
