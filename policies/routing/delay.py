"""How long a request would take at a target, from what was last heard of it.

The estimate is way + work ahead + own work (shortest expected delay; Whitt, "Deciding Which Queue
to Join", 1986). What a place reported is old when it is used: work ahead has drained since by a
second a second, and what this router has sent since then is ahead as well (`table` adds it), which
is the part of the news that is certain (Dahlin, "Interpreting Stale Load Information", 1999). A
report that is too old to say anything is replaced by what this router itself is waiting for there
(Mitzenmacher, "How Useful is Old Information?", 2000).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from policies.routing.lateness import corrected
from policies.routing.types import SLACKS, Request, Target

STALE_S: Final = 2.0  # a place that is up and asked several times a second has said nothing since


def relative_size(target: Target, bucket: int) -> float:
    """Return the work of a request of a size bucket, in requests of usual size."""
    return target.sizes[bucket] if target.sizes else 1.0


def wait_s(target: Target, slack_s: float, now: float) -> float:
    """Return seconds of work ahead of a request that is sent now, when it gets there.

    slack_s: to its deadline, without the way. Places that serve by deadline let it pass others.
    """
    gone_s = max(0.0, now + 0.5 * target.rtt_s - target.ahead_at)
    waits = target.ahead_s[bisect_left(SLACKS, slack_s + gone_s)] - gone_s
    if now - target.heard_at > STALE_S:
        waits = max(waits, target.outstanding * target.row_s)
    return waits if waits > 0.0 else 0.0


def place_s(target: Target, bucket: int, slack_s: float, now: float) -> float:
    """Return predicted seconds at the place: all but the way."""
    return wait_s(target, slack_s, now) + target.service_s * relative_size(target, bucket)


def expected_delay(target: Target, request: Request, now: float) -> float:
    """Return expected seconds from sending to the answer, corrected by the usual error."""
    rtt_s = target.rtt_s
    there_s = place_s(target, request.bucket, request.slack_s - rtt_s, now)
    return rtt_s + corrected(target.bias, there_s, target.service_s)


def with_work(
    ahead_s: tuple[float, ...], gone_s: float, slack_s: float, work_s: float
) -> tuple[float, ...]:
    """Return the work ahead with one more request.

    gone_s: from the moment for which ahead_s is said until it gets there; slack_s: of it then;
    work_s: of its work. Whoever has as much time as it or more comes behind it. What is said
    stays said for the same moment, so that deadlines do not move among `SLACKS`; a place that had
    nothing left to do meanwhile is as if it had worked until then.
    """
    behind = bisect_left(SLACKS, slack_s + gone_s)
    later_s = [(seconds if seconds > gone_s else gone_s) + work_s for seconds in ahead_s[behind:]]
    return (*ahead_s[:behind], *later_s)
