"""Whether a server that has fallen behind should turn a request away.

What counts is how long requests have waited for the server to look at them at all. A burst makes
some of them late and passes; a standing queue keeps them late for a whole interval, and then only
turning some away brings the delay down. That is how CoDel tells a bad queue from a good one
(Nichols and Jacobson, RFC 8289, section 3), applied to requests as in Maurer, "Fail at Scale"
(ACM Queue, 2015). CoDel looks at the least delay of an interval, because packets leave in the
order they came; an event loop serves in the order of its file descriptors, where somebody is
always in time, so the mean of the latest requests takes its place. Instead of dropping at a
growing rate, every late request is refused until the mean has been well below for an interval: a
refusal costs little and tells its caller when to come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INTERVAL_S: Final = 0.5  # longer than a burst, or a pause of the machine
FEW: Final = 16  # requests waiting; with fewer, refusing one would speed up nobody
_SMOOTHING: Final = 1 / 32


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is remembered between requests; times in seconds on any one clock.

    delay_s, gap_s: delays of the latest requests and times between them, exponentially
    weighted; is_behind: the delay is over the target and makes more than a few requests wait,
    or the opposite, since changed_at; seen_at: the latest request; is_standing: late requests
    are being refused.
    """

    delay_s: float = 0.0
    gap_s: float = INTERVAL_S
    is_behind: bool = False
    changed_at: float = -float("inf")
    seen_at: float = -float("inf")
    is_standing: bool = False


NO_BACKLOG: Final = Backlog()


def shed(backlog: Backlog, delay_s: float, now: float, target_s: float) -> tuple[Backlog, bool]:
    """Return what to remember, and whether to refuse a request that waited `delay_s`.

    target_s: a delay that is no reason to refuse anybody.
    """
    if now - delay_s - backlog.seen_at >= INTERVAL_S:  # there is no queue while nobody comes
        return Backlog(delay_s, changed_at=now, seen_at=now), False
    mean_s = backlog.delay_s + _SMOOTHING * (delay_s - backlog.delay_s)
    gap_s = backlog.gap_s + _SMOOTHING * (now - backlog.seen_at - backlog.gap_s)
    waiting = mean_s / max(gap_s, 1e-9)  # Little's law
    bound_s = target_s / 2 if backlog.is_standing else target_s  # or it would flap
    is_behind = mean_s > bound_s and waiting >= FEW
    changed_at, is_standing = backlog.changed_at, backlog.is_standing
    if is_behind != backlog.is_behind:
        changed_at = now
    elif now - changed_at >= INTERVAL_S:
        is_standing = is_behind
    is_refused = is_standing and delay_s > target_s
    return Backlog(mean_s, gap_s, is_behind, changed_at, now, is_standing), is_refused
