"""Scaling by requests in progress, as Ray Serve's own policy does it.

Wanted is what is in progress over what a replica should have in progress. More are started once
more were wanted for `up_s` without a break, fewer once fewer were for `down_s` (the last one: for
`idle_s`); then what is wanted at that moment counts. (Ray 2.60, `ray.serve.autoscaling_policy`:
`_apply_delay_logic`, factors 1.) Unlike there, work that comes or waits keeps the last one too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from policies.scaling.bounds import bounded
from policies.scaling.types import Bounds, Decision, Memory, Observed

_EARLY_S = 1e-6  # of clocks that were subtracted


@dataclass(frozen=True, slots=True)
class Reactive:
    """up_s, down_s, idle_s: delays; ongoing: requests in progress that a replica should have.

    Serve's defaults are 30 and 600 s. The average over a look-back is the caller's
    (`Observed.ongoing`). idle_s: down_s when None. name: as which it is logged.
    """

    bounds: Bounds
    ongoing: float
    up_s: float = 5.0
    down_s: float = 60.0
    name: str = "reactive"
    idle_s: float | None = None

    def decide(self, seen: Observed, memory: Memory) -> tuple[Decision, Memory]:
        """Return the decision and what to remember."""
        if seen.target == 0 and seen.running == 0:
            if seen.queued > 0 or seen.ongoing > 0 or seen.rate > 0:
                return bounded(1, "wake", self.name, seen, self.bounds), memory
            return bounded(0, "steady", self.name, seen, self.bounds), memory
        wanted = max(math.ceil(seen.ongoing / self.ongoing - 1e-9), self.bounds.minimum)
        if seen.queued > 0 or seen.rate > 0:
            wanted = max(1, wanted)
        wish = (wanted > seen.target) - (wanted < seen.target)
        since = memory.wish_since if wish == memory.wish else seen.now
        idle_s = self.down_s if self.idle_s is None else self.idle_s
        delay_s = self.up_s if wish > 0 else idle_s if seen.target == 1 else self.down_s
        memory = replace(memory, wish=wish, wish_since=since)
        if wish == 0 or seen.now - since + _EARLY_S < delay_s:
            return bounded(seen.target, "steady", self.name, seen, self.bounds), memory
        if wish < 0 and seen.target > 1:
            wanted = max(1, wanted)  # the last one goes by itself, as Serve does it
        reason = "load" if wish > 0 else ("less_load" if wanted else "idle")
        memory = replace(memory, wish=0, wish_since=seen.now)
        return bounded(wanted, reason, self.name, seen, self.bounds), memory
