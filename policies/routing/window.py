"""The latest values of something, kept in order, so that quantiles of them cost next to nothing."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Final

_ROUNDING: Final = 1e-9  # 0.07 of a hundred are seven, not a little more


class Window:
    """The latest `size` values. added_at: when the last one came, in seconds."""

    __slots__ = ("_latest", "_ordered", "_size", "added_at")

    def __init__(self, size: int) -> None:
        self.added_at = 0.0
        self._size = size
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, value: float, now: float) -> None:
        """Keep a value, in place of the oldest when there are enough. now: in seconds."""
        self.added_at = now
        if len(self._latest) >= self._size:
            del self._ordered[bisect_left(self._ordered, self._latest.popleft())]
        self._latest.append(value)
        insort(self._ordered, value)

    def clear(self) -> None:
        self._latest.clear()
        self._ordered.clear()

    def frozen(self) -> tuple[float, ...]:
        """Return them sorted."""
        return tuple(self._ordered)

    def quantile(self, share: float) -> float:
        """Return the least value that at least a share of them do not exceed.

        share: from 0 to 1. Raises ValueError where there is none.
        """
        if not self._ordered:
            raise ValueError("there is no quantile of nothing")
        rank = math.ceil(share * len(self._ordered) - _ROUNDING)
        return self._ordered[max(0, rank - 1)]
