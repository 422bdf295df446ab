"""How much more work a large request is than a usual one, learned for each place.

Sizes are put in buckets by powers of two, since work grows by factors. A bucket that was not seen
yet is judged by the nearest one that was; before any is, every request is a usual one.
"""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 32  # the last holds whatever is larger
_SMOOTHING: Final = 0.1


def bucket(size: float) -> int:
    """Return the bucket of a size in any unit that grows with work (bytes, tokens, rows)."""
    return min(BUCKETS - 1, max(0, int(size)).bit_length())


class SizeModel:
    """Means of relative work by bucket."""

    __slots__ = ("_known", "_means", "_nearest")

    def __init__(self) -> None:
        self._known: list[float | None] = [None] * BUCKETS
        self._nearest: tuple[int, ...] = ()  # by bucket, the one whose mean it takes
        self._means: tuple[float, ...] = ()

    def saw(self, bucket: int, relative: float) -> tuple[float, ...]:
        """Learn from one request, return the work of a request by bucket."""
        before = self._known[bucket]
        if before is None:
            self._known[bucket] = relative
            seen = [index for index, mean in enumerate(self._known) if mean is not None]
            self._nearest = tuple(
                min(seen, key=lambda other: (abs(other - index), other)) for index in range(BUCKETS)
            )
            self._means = self._all()
        else:
            mean = before + _SMOOTHING * (relative - before)
            self._known[bucket] = mean
            if abs(mean - self._means[bucket]) > 0.01 * mean:  # else nobody would notice
                self._means = self._all()
        return self._means

    def _all(self) -> tuple[float, ...]:
        known = self._known
        return tuple([known[index] or 0.0 for index in self._nearest])
