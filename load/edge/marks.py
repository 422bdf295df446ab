"""The pass marks: limits, what was found, and whether the one holds the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from load.bench.stats import Spread


@dataclass(frozen=True, slots=True)
class Mark:
    """A bound. subject: whose it is; title: says what is bounded, and by which statistic."""

    subject: str
    title: str
    unit: str
    how: Literal["at_most", "at_least"]
    limit: float


@dataclass(frozen=True, slots=True)
class Found:
    """The figure that counts, and the extremes of what it was taken from."""

    value: float
    least: float
    most: float

    @classmethod
    def median(cls, values: Sequence[float]) -> Found:
        """Raises ValueError for no values."""
        spread = Spread.of(values)
        return cls(spread.median, spread.least, spread.most)

    @classmethod
    def worst(cls, values: Sequence[float]) -> Found:
        """The largest. Raises ValueError for no values."""
        return cls(max(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A mark beside what was found."""

    mark: Mark
    found: Found
    is_met: bool


def judge(mark: Mark, found: Found) -> Verdict:
    """Compare; what is no number does not hold."""
    match mark.how:
        case "at_most":
            return Verdict(mark, found, found.value <= mark.limit)
        case "at_least":
            return Verdict(mark, found, found.value >= mark.limit)
