"""How much work a busy replica does in a second, learned from what replicas have answered.

Work is what a request is said to take; how much of it a replica does is seen only while it is busy.
Both are sums that fade, so that a replica which became slower is soon known to be. Nothing is
learned from what came: while requests wait, more comes than is done.
"""

from __future__ import annotations

from typing import Final

# Requests are counted, and one may have a thousand rows: then a replica does that many fewer.
WIDEST: Final = 1000.0
_PRIOR_S: Final = 0.5  # busy seconds that the prior counts for
_FORGET: Final = 0.5 ** (1 / 120)  # half of what was seen two minutes ago counts
# Where requests wait at all replicas, what was seen before is forgotten within seconds: that they
# were taken to be faster may be why.
_FORGET_WAITING: Final = 0.5 ** (1 / 5)
# Busy time waits for the answer that it was for, which may take seconds; no more than that of each
# replica, or a time without answers would count for good.
_UNANSWERED_S: Final = 60.0


class Capacity:
    """What is known of the replicas of one tier; told once a second.

    prior: work a second that a replica is taken to do until it was seen for some time, above 0.
    What is learned is at most `WIDEST` times as much or as little.
    """

    def __init__(self, prior: float = 1.0) -> None:
        self._prior = prior
        self._worked = self._busy = self._unanswered = 0.0

    @property
    def value(self) -> float:
        """Work that a busy replica does in a second, as seen lately."""
        found = (self._worked + self._prior * _PRIOR_S) / (self._busy + _PRIOR_S)
        return min(WIDEST * self._prior, max(self._prior / WIDEST, found))

    def learn(self, done: float, busy: float, replicas: int, *, all_wait: bool) -> None:
        """Take in a second. What was busy counts with the next answer, which may take seconds.

        done: work that was answered in it; busy: of the replicas, summed (2.0 are two fully busy
        ones); all_wait: requests wait at each of them for long.
        """
        forget = _FORGET_WAITING if all_wait else _FORGET
        self._unanswered = min(self._unanswered + busy, _UNANSWERED_S * max(1, replicas))
        self._worked *= forget
        self._busy *= forget
        if done > 0.0:
            self._worked += done
            self._busy += self._unanswered
            self._unanswered = 0.0
