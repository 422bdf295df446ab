"""What every attempt cost: summed for metrics, charged to budgets, written to the request log.

An answered request pays for its work: what the reply says it takes alone, else what was learned of
the place. An answer from memory was paid for before. Whatever becomes of it, a request that was
sent to another site has moved its bytes, and an answer those of its outputs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from edge_runtime.engine import Answered
from policies.cost import FREE, Cost, Rates, Spending, cost_of
from policies.routing import Decision, Request, Target
from policies.routing.delay import relative_size
from serve_apps.gateway.request_log import RequestLog, RequestRecord


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request on its way to a place, or to none. at: unix seconds of its arrival."""

    at: float
    request_id: str
    model: str
    version: str
    wanted: Request
    number: int = 0


class Ledger:
    """The accounts of one gateway. Use on one event loop."""

    def __init__(self, log: RequestLog | None = None, spending: Spending | None = None) -> None:
        """log: where records go, nowhere when None; spending: of budgets, where there are any."""
        self._log = log
        self._spending = spending
        self.costs: defaultdict[str, Cost] = defaultdict(lambda: FREE)

    @property
    def log(self) -> RequestLog | None:
        """The request log, for its counters."""
        return self._log

    def ended(
        self,
        attempt: Attempt,
        decision: Decision,
        reason: str,
        place: Target,
        rates: Rates,
        answer: Answered | None,
        taken_s: float,
        outcome: str,
    ) -> Cost:
        """Account for an attempt that ended, and return what it cost. answer: None without one."""
        wanted = attempt.wanted
        found = cost_of(rates, *_quantities(wanted, place, answer))
        self.costs[place.name] = self.costs[place.name].plus(found)
        if self._spending:
            now = attempt.at + taken_s
            self._spending.charge(wanted.tenant, attempt.model, found.usd, now)
        if self._log is not None:
            self._log.add(
                _line(attempt, outcome)._replace(
                    target=place.name,
                    tier=place.tier,
                    site=place.site,
                    reason=reason,
                    expected_s=decision.expected_s,
                    taken_s=taken_s,
                    late=decision.late,
                    cost=found,
                )
            )
        return found

    def refused(self, attempt: Attempt, outcome: str) -> None:
        """Account for a request that was sent nowhere."""
        if self._log is not None:
            self._log.add(_line(attempt, outcome))


def _line(attempt: Attempt, outcome: str) -> RequestRecord:
    """Return the record of an attempt that was sent nowhere."""
    wanted = attempt.wanted
    return RequestRecord(
        at=attempt.at,
        id=attempt.request_id,
        tenant=wanted.tenant,
        model=attempt.model,
        version=attempt.version,
        objective=wanted.objective,
        attempt=attempt.number,
        slack_s=wanted.slack_s,
        bytes=wanted.moved_bytes,
        origin_site=wanted.origin_site,
        outcome=outcome,
    )


def _quantities(wanted: Request, place: Target, answer: Answered | None) -> tuple[float, float]:
    """Return seconds of work, and bytes that crossed the border of a site."""
    work_s, moved_bytes = 0.0, wanted.moved_bytes
    if answer is not None:
        moved_bytes += sum(tensor.data.nbytes for tensor in answer.outputs)
        if not answer.age_s:
            work_s = answer.alone_s or place.service_s * relative_size(place, wanted.bucket)
    return work_s, moved_bytes if place.site != wanted.origin_site else 0.0
