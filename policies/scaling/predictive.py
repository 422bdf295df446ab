"""Scaling by a forecast, with an answer to bursts and a way back to reacting.

Replicas for the most that is expected until a new one could serve, and a little longer, so that
none is taken away that would be started again. Whatever was forecast, more work than the replicas
can do is answered at once (a burst), and then nothing is taken away for a while. While the
forecast is missing, old or no good, the reactive rule decides in its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from policies.scaling.bounds import bounded
from policies.scaling.edge import left_for_cloud
from policies.scaling.forecast import Forecast
from policies.scaling.reactive import Reactive
from policies.scaling.types import Decision, Memory, Observed

_MOST: Final = 1e6  # replicas; more than anybody has
EARLY_S: Final = 1.0  # by which a clock may be behind that of whoever made the forecast


@dataclass(frozen=True, slots=True)
class Predictive:
    """reactive: decides where the forecast cannot, and gives the bounds.

    utilisation: share of its capacity that a replica may be given by the forecast, which is a high
    quantile already; hold_s: a replica is kept for so long after it was needed; panic_s: as long
    after a burst; drain_s: a queue should be worked off within that; burst_utilisation: as
    utilisation, for what comes now; stale_s: age from which a forecast does not count; idle_s:
    without work for so long, the last replica may go (where the minimum is 0); spare_largest: plan
    for losing the largest edge node.
    """

    reactive: Reactive
    utilisation: float = 1.0
    hold_s: float = 20.0
    panic_s: float = 30.0
    drain_s: float = 5.0
    burst_utilisation: float = 0.85
    stale_s: float = 6.0
    idle_s: float = 300.0
    spare_largest: bool = False

    def decide(self, seen: Observed, memory: Memory) -> tuple[Decision, Memory]:
        """Return the decision and what to remember."""
        memory = self._after_burst(seen, memory)
        found = self._usable(seen)
        if found is None:
            return self._react(seen, replace(memory, is_trusting=False, needs=()))
        needed, memory = self._needed(seen, found.peak), replace(memory, is_trusting=True, wish=0)
        memory = replace(memory, needs=_hold(memory.needs, needed, seen.now, self.hold_s))
        kept = min(memory.needs[0][1], max(seen.target, needed))
        wanted = max(needed, kept, memory.floor)
        reason = "forecast"
        if memory.floor == wanted > max(needed, kept):
            reason = "burst" if wanted > seen.target else "panic"
        elif wanted > needed:
            reason = "hold"
        if wanted == self.reactive.bounds.minimum == 0:
            wanted, reason = self._sleep(seen)
        return bounded(wanted, reason, "predictive", seen, self.reactive.bounds), memory

    def _react(self, seen: Observed, memory: Memory) -> tuple[Decision, Memory]:
        """Decide as the reactive rule does, but not by less than a burst needed."""
        decision, memory = self.reactive.decide(seen, memory)
        if decision.wanted < memory.floor:
            reason = "burst" if memory.floor > seen.target else "panic"
            decision = bounded(memory.floor, reason, self.reactive.name, seen, self.reactive.bounds)
        return decision, memory

    def _usable(self, seen: Observed) -> Forecast | None:
        found = seen.forecast
        if found is None or found.why_not or seen.capacity <= 0:
            return None
        return found if -EARLY_S <= seen.now - found.made_at <= self.stale_s else None

    def _needed(self, seen: Observed, work: float) -> int:
        cloud = left_for_cloud(work, seen.edge_capacity, spare_largest=self.spare_largest)
        return _replicas(cloud, seen.capacity * self.utilisation)

    def _after_burst(self, seen: Observed, memory: Memory) -> Memory:
        """Remember what comes now, if the replicas there cannot do it; forget it after a while.

        What came only in the last second or two is over before a replica could start: the least
        of both rates counts.
        """
        work = min(seen.rate, seen.fast_rate) + seen.queued / self.drain_s
        cloud = left_for_cloud(work, seen.edge_capacity, spare_largest=False)
        if seen.capacity > 0 and cloud > seen.capacity * (seen.running + seen.starting):
            floor = _replicas(cloud, seen.capacity * self.burst_utilisation)
            if floor > max(seen.target, memory.floor):
                return replace(memory, panic_until=seen.now + self.panic_s, floor=floor)
        return memory if seen.now < memory.panic_until else replace(memory, floor=0)

    def _sleep(self, seen: Observed) -> tuple[int, str]:
        """Say whether the last replica may go, or has to come."""
        if seen.idle_s >= self.idle_s and seen.queued == 0 and seen.ongoing == 0:
            return 0, "idle"
        return 1, "wake" if seen.target == 0 else "hold"


def _replicas(work: float, each: float) -> int:
    """Return how many replicas do the work. A ratio of measured values may be beyond all bounds."""
    return math.ceil(min(work / each, _MOST) - 1e-6) if each > 0 else 0


def _hold(
    needs: tuple[tuple[float, int], ...], needed: int, now: float, hold_s: float
) -> tuple[tuple[float, int], ...]:
    """Return the needs that still hold, the largest first; one that a later tops is left out."""
    held = tuple(need for need in needs if need[0] > now and need[1] > needed)
    return (*held, (now + hold_s, needed))
