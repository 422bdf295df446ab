"""How likely a request is late somewhere, read from how wrong the estimates have been.

Nothing is assumed about the spread of delays: what is kept are the latest ratios of actual to
predicted time at a place, and the share of them under which this request would be late is its
risk. A request that was dropped or given up counts with the time it would at least have taken.
(An empirical predictive distribution; Koenker, "Quantile Regression", 2005, for why a quantile
needs no model of the errors; conformal prediction, Vovk et al. 2005, is the same idea.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import Final

WINDOW: Final = 150
ENOUGH: Final = 20  # ratios of a place, before they are preferred to those of all places
MOST: Final = 1e3  # one estimate that was wrong beyond all measure must not hide the others


class Ratios:
    """The latest `WINDOW` ratios of actual to predicted time."""

    __slots__ = ("_latest", "_ordered", "_sum")

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []
        self._sum = 0.0

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, ratio: float) -> None:
        ratio = min(ratio, MOST)
        if len(self._latest) >= WINDOW:
            oldest = self._latest.popleft()
            del self._ordered[bisect_left(self._ordered, oldest)]
            self._sum -= oldest
        self._latest.append(ratio)
        insort(self._ordered, ratio)
        self._sum += ratio

    def frozen(self) -> tuple[float, ...]:
        """Return them sorted."""
        return tuple(self._ordered)

    @property
    def mean(self) -> float:
        return self._sum / len(self._ordered) if self._ordered else 1.0


def late_share(ratios: tuple[float, ...], place_s: float, slack_s: float) -> float:
    """Return the share of requests that would be late.

    place_s: predicted seconds at the place; slack_s: time to the deadline without the way. Without
    any ratio the prediction is taken at its word.
    """
    if slack_s <= 0.0:
        return 1.0
    if not ratios:
        return 0.0 if place_s <= slack_s else 1.0
    if place_s <= 0.0:
        return 0.0
    count = len(ratios)
    return (count - bisect_right(ratios, slack_s / place_s)) / count
