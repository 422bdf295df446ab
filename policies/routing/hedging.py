"""Hedging: a request that takes unusually long gets a second copy elsewhere, within a budget.

Dean and Barroso, "The Tail at Scale", 2013: a copy is sent once a request has waited for longer
than a high quantile of recent delays, the first answer counts, and the other copy is cancelled.
`Hedger` is told what is sent and answered by one router for one model; `Race` keeps the copies of
one request apart. Three things keep copies from doing harm:

- A budget: each request earns a share of a copy, and nothing is borrowed. A trigger at the 95th
  percentile alone spends 5 % even where copies are of no use, and more in a burst, when everybody
  is slow and copies make it worse.
- A minimum of delays, before a quantile of them is believed.
- A copy goes out only where it is expected to be answered clearly sooner than the first one, which
  has waited already. What is left of that wait is read from past errors of the estimate at its
  place: the mean of those that are still possible.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from policies.routing.lateness import Errors
from policies.routing.table import RoutingTable, Sent
from policies.routing.types import Decision, Outcome, Request
from policies.routing.window import Window

RECENT: Final = 1000  # delays by which it is told what is unusual

Copy = TypeVar("Copy")


@dataclass(frozen=True, slots=True)
class HedgeRules:
    """When a copy is sent.

    quantile: of recent delays that a request has to wait; share: copies for each request, at most;
    burst: copies that can be saved up; fewest: delays before there is a quantile; margin: the
    share of the first one's expected wait by which a copy has to be sooner. Raises ValueError for
    what is not from 0 to 1, or no burst that allows a copy.
    """

    quantile: float = 0.95
    share: float = 0.05
    burst: float = 5.0
    fewest: int = 100
    margin: float = 0.2

    def __post_init__(self) -> None:
        for name in ("quantile", "share", "margin"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be from 0 to 1")
        if self.burst < 1.0 or not 1 <= self.fewest <= RECENT:
            raise ValueError(f"burst must be at least 1, and fewest from 1 to {RECENT}")


class Hedger:
    """What one router for one model knows of delays, and what it may still spend."""

    __slots__ = ("_delays", "_rules", "_tokens", "copies", "requests")

    def __init__(self, rules: HedgeRules | None = None) -> None:
        self._rules = rules or HedgeRules()
        self._delays = Window(RECENT)
        self._tokens = 0.0
        self.requests = 0
        self.copies = 0

    def sent(self) -> float | None:
        """Record a request. Return the seconds after which to ask for a copy, None for never."""
        self.requests += 1
        self._tokens = min(self._rules.burst, self._tokens + self._rules.share)
        if len(self._delays) < self._rules.fewest:
            return None
        return self._delays.quantile(self._rules.quantile)

    def answered(self, delay_s: float, now: float) -> None:
        """Record an answer. delay_s: from sending the first copy."""
        self._delays.add(delay_s, now)

    def copy(
        self,
        request: Request,
        first: Sent,
        table: RoutingTable,
        now: float,
        rule: Callable[[Request, RoutingTable, float], Outcome],
    ) -> Decision | None:
        """Return where a copy goes; None where it is not worth it, or not paid for.

        request: as it was when it was sent first; rule: chooses among the other targets.
        """
        if self._tokens < 1.0:
            return None
        target = table.targets[first.position]
        waited_s = now - first.at
        others = request.excluded | {target.name}
        left = request._replace(slack_s=request.slack_s - waited_s, excluded=others)
        outcome = rule(left, table, now)
        if not isinstance(outcome, Decision) or outcome.reason == "last_resort":
            return None
        remaining_s = still_to_wait(
            target.errors, first.rtt_s, first.place_s, first.service_s, waited_s
        )
        if outcome.expected_s > (1.0 - self._rules.margin) * remaining_s:
            return None
        self._tokens -= 1.0
        self.copies += 1
        return outcome


def still_to_wait(
    errors: Errors, rtt_s: float, place_s: float, service_s: float, waited_s: float
) -> float:
    """Return expected seconds to the answer of a request that has waited for some.

    errors: of its place, in order (`lateness`); rtt_s, place_s, service_s: as predicted when it was
    sent. One that has waited for longer than any before it is expected to wait as long again.
    """
    whole_s = place_s + service_s
    if errors and whole_s > 0.0:
        possible = errors[bisect_right(errors, (waited_s - rtt_s + service_s) / whole_s) :]
        if possible:
            mean = sum(possible) / len(possible)
            return max(0.0, rtt_s + mean * whole_s - service_s - waited_s)
    elif waited_s < rtt_s + place_s:
        return rtt_s + place_s - waited_s
    return waited_s


class Race(Generic[Copy]):
    """The copies of one request that are under way. The first answer wins."""

    __slots__ = ("_running", "is_over")

    def __init__(self, first: Copy) -> None:
        self._running = [first]
        self.is_over = False

    def joined(self, copy: Copy) -> None:
        """Take in one more copy."""
        self._running.append(copy)

    def answered(self, copy: Copy) -> list[Copy]:
        """Record the first answer. Return the copies to cancel; none when it came too late."""
        losers = [other for other in self._running if other is not copy]
        self._running = []
        self.is_over = True
        return losers

    def failed(self, copy: Copy) -> bool:
        """Record that a copy will have no answer. Return whether that was the last hope."""
        if self.is_over:
            return False
        self._running = [other for other in self._running if other is not copy]
        self.is_over = not self._running
        return self.is_over
