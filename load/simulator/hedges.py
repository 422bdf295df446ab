"""Hedging in the simulator: second copies of requests that wait for long, and their cancellation.

A copy is a job of its own, sent as any other. The answer that comes first closes the request; the
other copy is cancelled, which takes the way there: one that waits leaves its queue, one that is
computed already is computed to the end. What copies cost is added to their requests.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy as copy_of
from typing import Any

from load.simulator.jobs import Job
from policies.routing import Outcome, Request, RoutingTable, Sent
from policies.routing.hedging import Hedger, Race


class Hedges:
    """Who waits for a second copy, and which copies belong together."""

    def __init__(
        self,
        rule: Callable[[Request, RoutingTable, float], Outcome] | None,
        *,
        at: Callable[[float, Callable[..., None], Any], None],
        table_of: Callable[[Job], RoutingTable],
        send: Callable[[Job, str, Request, float, int], None],
        cancel: Callable[[Job, float], None],
    ) -> None:
        """rule: that chooses where copies go; None: there are none."""
        self._rule = rule
        self._at = at
        self._table_of = table_of
        self._send = send
        self._cancel = cancel
        self._hedgers: dict[int, Hedger] = {}
        self._races: dict[int, tuple[Race[Job], Job]] = {}  # by each job in it; its first one
        self.copies: list[Job] = []

    def sent(self, job: Job, request: Request, now: float) -> None:
        """Be told of a send; of a first one, a copy may follow."""
        if self._rule is None or job.attempts > 1:
            return
        wait_s = self._hedger(job).sent()
        if wait_s is not None:
            self._at(now + wait_s, self._look, (job, job.sent, request))

    def is_over(self, job: Job) -> bool:
        """Tell whether a job is of no interest any more: another copy was answered first."""
        found = self._races.get(id(job))
        return found is not None and found[0].is_over

    def won(self, job: Job, now: float) -> Job:
        """Return the request that an answer is of; its other copies are cancelled."""
        found = self._races.get(id(job))
        first = job if found is None else found[1]
        if self._rule is not None:
            self._hedger(first).answered(now - first.sent.at, now)
        if found is not None:
            for loser in found[0].answered(job):
                self._cancel(loser, now)
        return self._stands_for(job, first)

    def fell(self, job: Job) -> Job | None:
        """Return the request that is lost with a copy; None while another one is under way."""
        found = self._races.get(id(job))
        if found is None:
            return job
        race, first = found
        if not race.failed(job):
            return None
        del self._races[id(first)]  # it may be sent again
        return self._stands_for(job, first)

    def settle(self) -> None:
        """Add what copies cost to their requests."""
        for copy in self.copies:
            self._races[id(copy)][1].cost_usd += copy.cost_usd

    def _hedger(self, job: Job) -> Hedger:
        return self._hedgers.setdefault(id(self._table_of(job)), Hedger())

    def _look(self, now: float, value: tuple[Job, Sent, Request]) -> None:
        job, sent, request = value
        if self._rule is None or job.outcome or job.sent is not sent:
            return
        table = self._table_of(job)
        decision = self._hedger(job).copy(request, sent, table, now, self._rule)
        if decision is None:
            return
        copy = copy_of(job)
        copy.cost_usd = 0.0
        race = Race(job)
        race.joined(copy)
        self._races[id(job)] = self._races[id(copy)] = (race, job)
        self.copies.append(copy)
        self._send(copy, decision.target, request, now, request.draw)

    @staticmethod
    def _stands_for(job: Job, first: Job) -> Job:
        first.target = job.target
        return first
