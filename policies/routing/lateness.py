"""How likely a request is late somewhere, read from how wrong the estimates have been.

Nothing is assumed about the spread of delays. What is kept are the latest errors of the estimates
at a place, and the share of them with which this request would be late is its risk (an empirical
predictive distribution). A request that was dropped or given up counts with the time it would at
least have taken.

An error is a ratio, `(actual + o) / (predicted + o)`, where the offset o is the work of a lone
request there: without it a short wait that became longer by one stranger's batch would condemn
long ones as well.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from policies.routing.window import Window

WINDOW: Final = 150  # errors that are kept of a place
ENOUGH: Final = 20  # of a place, before they are preferred to those of all places
# Seconds to the deadline by which it is counted apart how often predictions came true: where
# deadlines order, who is in a hurry passes others, and whoever is passed takes longer.
HURRIES: Final = (0.25, 2.0)
FORGET_S: Final = 15.0  # a place that was bad is not asked again, and would stay bad for ever
MOST: Final = 1e3  # one estimate that was wrong beyond all measure must not hide the others

Errors = tuple[float, ...]


def hurry(slack_s: float) -> int:
    """Return the index of a request's class of hurry. slack_s: to its deadline."""
    return bisect_left(HURRIES, slack_s)


class LatestErrors(Window):
    """The latest `WINDOW` errors of one place."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(WINDOW)

    def add(self, error: float, now: float) -> None:
        """Keep an error, in place of the oldest when there are enough. now: in seconds."""
        super().add(min(error, MOST), now)

    @property
    def median(self) -> float:
        return self._ordered[len(self._ordered) // 2] if self._ordered else 1.0


def error(actual_s: float, place_s: float, service_s: float) -> float:
    """Return how wrong a prediction was: 1 not at all, 2 about twice as long.

    actual_s, place_s: seconds at the place, actual and predicted; service_s: of a lone request.
    """
    return (max(0.0, actual_s) + service_s) / (place_s + service_s)


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
    count = len(errors)
    return (count - bisect_right(errors, (slack_s + service_s) / (place_s + service_s))) / count


def corrected(bias: float, place_s: float, service_s: float) -> float:
    """Return predicted seconds at a place, corrected by the usual error."""
    return max(0.0, bias * (place_s + service_s) - service_s)
