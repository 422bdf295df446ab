"""How long a request stays with a place that says nothing.

A place is taken for silent only after a while, because a machine that is short of processor time
looks the same from here as a dead one. A request that was sent there in that while would wait until
its deadline. So each has a patience of its own: where the place has answered nobody, neither a
request nor a probe, since this one was sent, and there is still time to be served elsewhere, it is
taken back and sent there. It is a move, no second copy: only one place works on it.
"""

from __future__ import annotations

import math
from typing import Final

from policies.routing.types import Decision

SHARE: Final = 0.5  # of its time, that a request waits at least
LONGER: Final = 2.0  # than expected, that it may take here before it leaves, and elsewhere after


def patience_s(decision: Decision, slack_s: float) -> float | None:
    """Return after how many seconds a request leaves the place that was chosen, if that is silent.

    None: it has nowhere else to go; infinite: it has, but no time for it. slack_s: to its deadline.
    """
    others = [
        verdict.expected_s
        for verdict in decision.verdicts
        if verdict.ruled_out is None and verdict.target != decision.target
    ]
    if not others:
        return None
    wait_s = max(SHARE * slack_s, LONGER * decision.expected_s)
    return wait_s if wait_s + LONGER * min(others) <= slack_s else math.inf
