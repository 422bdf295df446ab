"""How much work came, bucket by bucket, in bounded memory.

One history of seconds says what happens now; another of coarser buckets remembers past seasons.
Buckets are counted from time zero of the caller's clock (the unix epoch outside the simulator), so
that a phase of the day means the same after a restart and in another process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class History:
    """Work that arrived in each of the last `buckets` buckets of `bucket_s` seconds."""

    def __init__(self, bucket_s: float, buckets: int) -> None:
        """Begin empty. Raises ValueError for a bucket or a number of them that is not positive."""
        if not (bucket_s > 0 and buckets > 0):
            raise ValueError("a history needs buckets of a positive length, at least one")
        self.bucket_s = bucket_s
        self.buckets = buckets
        self._values = np.zeros(2 * buckets)  # each value twice, so that any window is contiguous
        self._first: int | None = None  # number of the oldest bucket that counts
        self._last = 0

    def add(self, at_s: float, work: float) -> None:
        """Count work that arrived; what is older than everything kept is left out."""
        number = math.floor(at_s / self.bucket_s)
        if self._first is None:
            self._first = self._last = number
        elif number > self._last:
            self._extend(number, self._first)
        elif number < self._first:
            return
        place = number % self.buckets
        self._values[place] += work
        self._values[place + self.buckets] += work

    @property
    def total(self) -> float:
        """Work of everything kept."""
        return float(self._values[: self.buckets].sum())

    def known(self, until_s: float) -> tuple[float, Floats]:
        """Return when the first complete bucket began, and the work of all complete ones.

        A bucket counts from when it has ended; where nothing came there are zeros. The array is a
        view, valid until the next `add` or `known`.
        """
        end = math.floor(until_s / self.bucket_s)
        if self._first is None:
            return end * self.bucket_s, self._values[:0]
        if end - 1 > self._last:
            self._extend(end - 1, self._first)
        count = max(0, min(end, self._last + 1) - self._first)
        place = self._first % self.buckets
        return self._first * self.bucket_s, self._values[place : place + count]

    def restore(self, begin_s: float, works: Sequence[float]) -> None:
        """Put buckets back that `known` returned in another life."""
        for index, work in enumerate(works):
            self.add(begin_s + (index + 0.5) * self.bucket_s, work)

    def _extend(self, number: int, first: int) -> None:
        gap = number - self._last
        if gap >= self.buckets:
            self._values[:] = 0.0
        else:
            places = np.arange(self._last + 1, number + 1) % self.buckets
            self._values[places] = 0.0
            self._values[places + self.buckets] = 0.0
        self._last = number
        self._first = max(first, number - self.buckets + 1)


def added(histories: Sequence[History], until_s: float) -> Floats:
    """Return the work of all, bucket by bucket, from the begin of the one that began first.

    Raises ValueError for none; all have buckets of one length.
    """
    if not histories:
        raise ValueError("there is no history to add up")
    parts = [history.known(until_s)[1] for history in histories]
    works = np.zeros(max(len(part) for part in parts))
    for part in parts:  # all of them end now
        works[len(works) - len(part) :] += part
    return works


class Flow:
    """Work by time as a running total, so that the mean over any span is one subtraction.

    Between the ends of buckets the total is a straight line. begin_s, end_s: what is known.
    """

    def __init__(self, histories: Sequence[History], until_s: float) -> None:
        """Take histories together (`added`)."""
        works = added(histories, until_s)
        self._bucket_s = histories[0].bucket_s
        self.end_s = math.floor(until_s / self._bucket_s) * self._bucket_s
        self.begin_s = self.end_s - len(works) * self._bucket_s
        self._total = np.concatenate(((0.0,), np.cumsum(works)))

    def mean(self, begin_s: Floats, end_s: Floats) -> Floats:
        """Return work a second over spans; what is not known counts as nothing."""
        return (self._at(end_s) - self._at(begin_s)) / (end_s - begin_s)

    def over(self, begin_s: float, end_s: float) -> float:
        """Return work a second over one span."""
        return float(self.mean(np.array([begin_s]), np.array([end_s]))[0])

    def _at(self, when_s: Floats) -> Floats:
        place = (when_s - self.begin_s) / self._bucket_s
        return np.interp(place, np.arange(len(self._total)), self._total)
