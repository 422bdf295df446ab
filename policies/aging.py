"""Which of the requests that wait goes first, so that low priority waits longer but never for ever.

With strict priorities a caller who always sends at the highest one keeps all others out. The
remedy is aging: the longer somebody waits, the more urgent (a rise in steps, as in the feedback
queues of Corbató et al., "An Experimental Time-Sharing System", 1962; a linear one, as in
Kleinrock and Finkelstein, "Time Dependent Priority Queues", 1967). Here a request rises by one
level with each window of `AGING_S` that begins while it waits.

Everybody rises at the same pace, so that of two requests the one ahead stays ahead: comparing
level1 - (now - window1) with level2 - (now - window2) is comparing level1 + window1 with
level2 + window2, whatever `now` is. Urgency is therefore settled on arrival, which is what a heap
needs (Jackson, "Some Problems in Queueing with Dynamic Priorities", 1960, orders by arrival plus
an urgency number for the same reason).

A priority may be any number up to 2**32 - 1. Its level is its number of binary digits: 0 for 0,
1 for 1, 2 for 2 and 3, 4 for 8 to 15, 32 at most. Small numbers, which people use, remain apart
by time as well, and the greatest costs 33 windows, about 8 s, and not years.
"""

from __future__ import annotations

from math import floor
from typing import Final

# A burst fits into a window, and inside one priority is strict. Admission lets requests expect a
# second of waiting by default: four windows, so that priorities up to 7 are overtaken by nobody
# who comes after that. A power of two, because windows are then exact, whatever the clock says.
AGING_S: Final = 0.25
MAX_LEVEL: Final = 32

Urgency = tuple[int, int, float, int]


def urgency(priority: int, queued_at: float, deadline: float, arrival: int) -> Urgency:
    """Return what to sort by, the most urgent first; it holds for as long as the request waits.

    Of requests that came in the same window the lower priority number is first, then the earlier
    deadline, then the earlier arrival. Nobody is overtaken by a request that comes
    (level + 1) * AGING_S later or after that, whatever the two priorities are; and never by one of
    a higher number that did not come in an earlier window. Among equal priorities, deadlines
    order those of one window only: a tight deadline does not pass who came windows before.

    priority: 0 or more; queued_at: on any clock that does not go back, negative or large;
    deadline: on any clock, inf for none; arrival: a count.
    """
    level = min(priority.bit_length(), MAX_LEVEL)
    return floor(queued_at / AGING_S) + level, priority, deadline, arrival
