"""Places that have no replica now, but start one for a request: how long that takes, and who asks.

A place that sleeps may serve, behind the start as if that were work ahead (`RoutingTable.asleep`).
So who has time may wait for it, and who has none goes to a place that is awake, or is refused with
the time after which trying again makes sense. It is woken for whoever would have been served there
in time had it been awake, whatever becomes of that request itself: the next one finds it up.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from policies.routing.delay import relative_size
from policies.routing.filters import ruled_out
from policies.routing.table import RoutingTable
from policies.routing.types import Decision, NoTarget, Outcome, Request, Target

WAKE_AT: Final = 0.05  # P(late) at the best place that is awake, from which another is woken
STARTS: Final = 5  # the latest that are remembered
OVERDUE: Final = 0.25


class StartTimes:
    """How long a place's last starts took. assumed_s: until one was measured."""

    def __init__(self, assumed_s: float) -> None:
        self._assumed_s = assumed_s
        self._took_s: deque[float] = deque(maxlen=STARTS)

    def took(self, seconds: float) -> None:
        """Take in a start that has ended."""
        self._took_s.append(max(0.0, seconds))

    @property
    def expected_s(self) -> float:
        """The longest of the last ones: a start that others had asked for before seems short."""
        return max(self._took_s, default=self._assumed_s)

    def left_s(self, passed_s: float) -> float:
        """Return what is left of a start that was asked for so long ago.

        One that is overdue is taken to need a quarter more of what it has had, as with all waits
        whose tail is heavy: the longer one has waited, the longer one will (Harchol-Balter and
        Downey, "Exploiting Process Lifetime Distributions for Dynamic Load Balancing", 1997).
        """
        return max(self.expected_s - passed_s, OVERDUE * passed_s)


def to_wake(request: Request, outcome: Outcome, table: RoutingTable) -> str | None:
    """Return the place to wake for a request; None where that is no help or not needed.

    It is the one that was chosen, if that sleeps. It is none while a place that is awake serves
    the request nearly surely in time. Else it is the nearest of those that may serve it and, once
    awake, would do so in time; where nothing that may serve it is awake, the nearest anyway.
    """
    if isinstance(outcome, NoTarget):
        return None
    if isinstance(outcome, Decision):
        if table[outcome.target].is_asleep:
            return outcome.target
        if outcome.late < WAKE_AT and outcome.reason != "last_resort":
            return None
    able = [target for target in table.targets if ruled_out(request, target) is None]
    asleep = [target for target in able if target.is_asleep]
    if len(asleep) < len(able):
        asleep = [t for t in asleep if _awake_s(t, request.bucket) <= request.slack_s]
    if not asleep:
        return None
    return min(asleep, key=lambda t: (_awake_s(t, request.bucket), t.name)).name


def _awake_s(target: Target, bucket: int) -> float:
    """Return what a request would take there if it were awake and had nothing else to do."""
    return target.rtt_s + target.service_s * relative_size(target, bucket)
