"""The values that scaling speaks in. Times are seconds; work is in any unit, the same everywhere.

A rule is asked again and again: it is given what is seen and what it remembered, and returns what
to do and what to remember. So a decision can be repeated from its inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from policies.scaling.forecast import Forecast


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many replicas there may be.

    budget: most replica-seconds of any hour, None for as many as one likes. Raises ValueError
    unless 0 <= minimum <= maximum, maximum >= 1 and the budget pays for the minimum, or for one.
    """

    minimum: int = 1
    maximum: int = 1
    budget: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= max(self.maximum, 1) or self.maximum < 1:
            raise ValueError("bounds are 0 <= minimum <= maximum, with a maximum of 1 or more")
        if self.budget is not None and self.budget < 3600.0 * self.paid:
            raise ValueError("the budget does not pay for the minimum, or for one replica")

    @property
    def paid(self) -> int:
        """Replicas that the budget pays for before any other."""
        return max(1, self.minimum)


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known when a decision is made.

    rate, fast_rate, long_rate: work that came per second in the last 3, 6 and 60 seconds;
    ongoing: requests waiting or running, averaged over the look-back of whoever counts them;
    queued: work waiting for a replica; running, starting: replicas; target: the last decision;
    capacity: work a second that one replica does, measured, 0 while that is not known; idle_s:
    since any work came; extra_spent: replica-seconds of the last hour beyond `Bounds.paid`;
    edge_capacity: work a second that each edge node takes within the deadlines; forecast: the
    latest one, if any.
    """

    now: float
    rate: float = 0.0
    fast_rate: float = 0.0
    long_rate: float = 0.0
    ongoing: float = 0.0
    queued: float = 0.0
    running: int = 0
    starting: int = 0
    target: int = 0
    capacity: float = 0.0
    idle_s: float = 0.0
    extra_spent: float = 0.0
    edge_capacity: tuple[float, ...] = ()
    forecast: Forecast | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a rule remembers between decisions; a new rule begins with `NOTHING`.

    wish: +1 or -1 while it has wanted more or fewer replicas since wish_since; panic_until, floor:
    no fewer than floor replicas until then; needs: (until, replicas) of needs that still hold,
    ascending in time and descending in replicas; is_trusting: the forecast was followed.
    """

    wish: int = 0
    wish_since: float = 0.0
    panic_until: float = -float("inf")
    floor: int = 0
    needs: tuple[tuple[float, int], ...] = ()
    is_trusting: bool = False


NOTHING = Memory()


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there should be, and why.

    wanted: before bounds and budget. reason: one of `REASONS`; rule: which one decided; seen: its
    inputs.
    """

    target: int
    wanted: int
    reason: str
    rule: str
    seen: Observed


REASONS = {
    "steady": "enough replicas, not too many",
    "load": "more requests in progress than the replicas should have",
    "less_load": "fewer requests in progress, for long enough",
    "forecast": "the forecast needs another number of replicas",
    "burst": "more work comes than the replicas can do",
    "panic": "more work came than they could do a moment ago; nothing is taken away yet",
    "hold": "a replica was needed a moment ago; it is kept for a while",
    "wake": "work came while there was no replica",
    "idle": "no work came for long enough",
    "maximum": "more are needed than there may be",
    "minimum": "fewer are needed than there should be",
    "budget": "the budget of the hour does not allow more",
}


class Rule(Protocol):
    """Decides how many replicas there should be."""

    def decide(self, seen: Observed, memory: Memory) -> tuple[Decision, Memory]: ...
