"""Scaling by two averages, as Knative's autoscaler does it.

A stable window says how many replicas there should be; when the panic window asks for twice what
is there, its average counts and nothing is taken away until the stable window has passed without
that (Knative Serving, `pkg/autoscaler/scaling/autoscaler.go`: 60 s, 10 %, 200 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from policies.scaling.bounds import bounded
from policies.scaling.types import Bounds, Decision, Memory, Observed


@dataclass(frozen=True, slots=True)
class Knative:
    """utilisation: share of a replica's capacity to plan with; panic: factor that begins one."""

    bounds: Bounds
    utilisation: float = 0.7
    stable_s: float = 60.0
    panic: float = 2.0

    def decide(self, seen: Observed, memory: Memory) -> tuple[Decision, Memory]:
        """Return the decision and what to remember."""
        planned = max(seen.capacity * self.utilisation, 1e-12)
        stable = math.ceil(seen.long_rate / planned - 1e-9)
        fast = math.ceil(seen.fast_rate / planned - 1e-9)
        if fast >= self.panic * max(seen.running, 1):
            memory = replace(memory, panic_until=seen.now + self.stable_s)
        if seen.now < memory.panic_until:
            floor = max(memory.floor, fast, stable, seen.target)
            reason = "burst" if floor > seen.target else "panic"
            memory = replace(memory, floor=floor)
            return bounded(floor, reason, "knative", seen, self.bounds), memory
        memory = replace(memory, floor=0)
        if seen.target > 0 and stable == 0 and seen.idle_s < self.stable_s:
            stable = 1
        reason = (
            "load" if stable > seen.target else "less_load" if stable < seen.target else "steady"
        )
        return bounded(stable, reason, "knative", seen, self.bounds), memory
