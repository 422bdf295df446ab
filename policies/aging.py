"""Which of the requests that wait goes first: by deadline, and low priority never waits for ever.

Earliest deadline first is optimal for meeting deadlines while they can all be met (Liu and Layland,
1973), and where they cannot, those that cannot are dropped when their turn comes. But a deadline
that is far away must not mean waiting until then, and with strict priorities a caller who always
sends at the highest one keeps all others out. Both are settled by ordering by a moment that is
fixed on arrival (Jackson, "Some Problems in Queueing with Dynamic Priorities", 1960, orders by
arrival plus an urgency number): the deadline, but at most `PATIENCE_S` after arrival, and a step of
`STEP_S` later for each level of priority. Waiting brings everybody closer to that moment at the
same pace, so that of two requests the one ahead stays ahead, which is what a heap needs.

A priority may be any number up to 2**32 - 1. Those below 8, which people use, are levels of their
own; above, the level grows by one as the number doubles, to 36 at most: the greatest number costs
37 steps, about 46 s, and not years.
"""

from __future__ import annotations

from typing import Final

PATIENCE_S: Final = 1.0  # who has more time than this is in no hurry
# What came at a lower number up to this much later still goes first.
GRACE_S: Final = 0.25
STEP_S: Final = PATIENCE_S + GRACE_S
MAX_LEVEL: Final = 36
_SMALL: Final = 8  # numbers below are levels of their own

Urgency = tuple[float, int, int]


def level(priority: int) -> int:
    """Return the level of a priority: the same for numbers that are as large, beyond small ones."""
    return priority if priority < _SMALL else min(priority.bit_length() + 4, MAX_LEVEL)


def urgency(priority: int, queued_at: float, deadline: float, arrival: int) -> Urgency:
    """Return what to sort by, the most urgent first; it holds for as long as the request waits.

    Its first part is a moment on the clock of queued_at. Of requests of one priority that have no
    more than PATIENCE_S left, the earlier deadline is first. A request is overtaken by none of a
    higher level that comes later, or came up to GRACE_S before; and by none at all, whatever their
    priorities and deadlines are, that comes (level + 1) * STEP_S later or after that.

    priority: 0 or more; queued_at: on any clock that does not go back; deadline: on the same clock,
    inf for none; arrival: a count.
    """
    left_s = min(max(deadline - queued_at, 0.0), PATIENCE_S)
    return queued_at + left_s + level(priority) * STEP_S, priority, arrival
