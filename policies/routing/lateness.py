"""How likely a request is late somewhere, read from how wrong the estimates have been.

Nothing is assumed about the spread of delays. What is kept are the latest errors of the estimates
at a place, and the share of them with which this request would be late is its risk (an empirical
predictive distribution). A request that was dropped or given up counts with the time it would at
least have taken.

An error is a ratio, `(actual + o) / (predicted + o)`, where the offset o is four times the work of
a request there. A bare ratio would let a short wait that became longer by one stranger's batch
condemn long ones, and a difference in seconds would let a long wait condemn short ones; four was
best or nearly so by the score of probability forecasts (CRPS; Gneiting and Raftery, 2007) wherever
it was tried, in calm and bursty traffic, in queues by arrival and by deadline.

Errors are kept apart by situation: how much time the request had, because who is in a hurry passes
others where deadlines order, and how much work was ahead, because what is nearly idle errs
otherwise than what is busy.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import Final

WINDOW: Final = 100  # errors that are kept of each situation
ENOUGH: Final = 20  # errors of a place, before they are preferred to those of all places
FORGET_S: Final = 15.0  # a place that was bad is not asked again, and would stay bad for ever
MOST: Final = 1e3  # one estimate that was wrong beyond all measure must not hide the others

OFFSET: Final = 4.0
HURRIES: Final = (0.25, 1.5)  # seconds to the deadline
LEVELS: Final = (1.3, 3.0)  # predicted seconds at the place over those of a lone request
SITUATIONS: Final = (len(HURRIES) + 1) * (len(LEVELS) + 1)

Errors = tuple[float, ...]
NO_ERRORS: Final[tuple[Errors, ...]] = ((),) * SITUATIONS
NO_BIAS: Final = (1.0,) * SITUATIONS


class LatestErrors:
    """The latest `WINDOW` errors of one situation."""

    __slots__ = ("_latest", "_ordered", "_sum", "added_at")

    def __init__(self) -> None:
        self.added_at = 0.0
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []
        self._sum = 0.0

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, error: float, now: float) -> None:
        error = min(error, MOST)
        self.added_at = now
        if len(self._latest) >= WINDOW:
            oldest = self._latest.popleft()
            del self._ordered[bisect_left(self._ordered, oldest)]
            self._sum -= oldest
        self._latest.append(error)
        insort(self._ordered, error)
        self._sum += error

    def clear(self) -> None:
        self._latest.clear()
        self._ordered.clear()
        self._sum = 0.0

    def frozen(self) -> Errors:
        """Return them sorted."""
        return tuple(self._ordered)

    @property
    def mean(self) -> float:
        return self._sum / len(self._ordered) if self._ordered else 1.0


def situation(slack_s: float, place_s: float, service_s: float) -> int:
    """Return the index of a situation.

    slack_s: time to the deadline when it was sent; place_s: predicted seconds at the place;
    service_s: of a request there, alone.
    """
    level = bisect_left(LEVELS, place_s / service_s) if service_s > 0.0 else 0
    return bisect_left(HURRIES, slack_s) * (len(LEVELS) + 1) + level


def error(actual_s: float, place_s: float, service_s: float) -> float:
    """Return how wrong a prediction was: 1 not at all, 2 about twice as long."""
    offset_s = OFFSET * service_s
    return (max(0.0, actual_s) + offset_s) / (place_s + offset_s)


def late_share(errors: Errors, place_s: float, service_s: float, slack_s: float) -> float:
    """Return the share of requests that would be late.

    slack_s: time to the deadline without the way. Without any errors the prediction is taken at
    its word.
    """
    if slack_s <= 0.0:
        return 1.0
    if not errors:
        return 0.0 if place_s <= slack_s else 1.0
    if place_s <= 0.0:
        return 0.0
    offset_s = OFFSET * service_s
    most = (slack_s + offset_s) / (place_s + offset_s)
    count = len(errors)
    return (count - bisect_right(errors, most)) / count


def corrected(bias: float, place_s: float, service_s: float) -> float:
    """Return predicted seconds at a place, corrected by the mean of the errors."""
    offset_s = OFFSET * service_s
    import os
    k=float(os.environ.get('BIAS','1'))
    bias=1+k*(bias-1)
    return max(0.0, bias * (place_s + offset_s) - offset_s)
