"""What requests of a model take at a place, alone: a distribution for each bucket of sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

QUANTILES: Final = 41  # kept of a distribution, at even ranks from the least to the greatest
_MIDDLE: Final = 0.5


@dataclass(frozen=True)
class Times:
    """Seconds of work, as quantiles at even ranks, ascending; one of them: always the same."""

    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Return the distribution of what was seen."""
        ranks = np.linspace(0.0, 1.0, QUANTILES if len(seconds) > 1 else 1)
        return cls(tuple(np.quantile(np.asarray(seconds, np.float64), ranks).tolist()))

    def at(self, rank: float) -> float:
        """Return the seconds at a rank from 0 to 1, between quantiles on a straight line."""
        last = len(self.quantiles) - 1
        place = min(max(rank, 0.0), 1.0) * last
        below = min(int(place), max(0, last - 1))
        above = min(below + 1, last)
        low, high = self.quantiles[below], self.quantiles[above]
        return low + (high - low) * (place - below)

    @property
    def median(self) -> float:
        return self.at(_MIDDLE)


@dataclass(frozen=True)
class Service:
    """usual_s: of a usual request; by_bucket: times by size bucket (`policies.routing.sizes`).

    A bucket that was not seen takes what the nearest one does.
    """

    usual_s: float
    by_bucket: Mapping[int, Times]

    def times(self, bucket: int) -> Times:
        found = self.by_bucket.get(bucket)
        if found is None:
            nearest = min(self.by_bucket, key=lambda other: (abs(other - bucket), other))
            found = self.by_bucket[nearest]
        return found
