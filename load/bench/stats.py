"""Percentiles, and ratios of measurements that were made side by side.

A shared machine drifts by more than the differences that matter. So a comparison is made within
each round, where both sides saw the same machine, and the median of the rounds is reported with
its extremes; absolute figures are for orientation (Kalibera and Jones, "Rigorous benchmarking in
reasonable time", 2013, on why the repetition must be at the level that varies).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A median over rounds and the extremes around it."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value. Raises ValueError for none."""
        if not values:
            raise ValueError("no values to summarise")
        return cls(statistics.median(values), min(values), max(values))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the ordered values lie (nearest rank).

    Raises ValueError for no values or a share out of range.
    """
    if not ordered:
        raise ValueError("no values to take a percentile of")
    if not 0.0 <= share <= 1.0:
        raise ValueError("share must be from 0 to 1")
    rank = math.ceil(share * len(ordered))
    return ordered[max(0, rank - 1)]


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Summarise ours[i] / theirs[i] over rounds. Raises ValueError when they do not pair up."""
    return _paired(ours, theirs, lambda a, b: a / b)


def paired_differences(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Summarise ours[i] - theirs[i] over rounds. Raises ValueError when they do not pair up."""
    return _paired(ours, theirs, lambda a, b: a - b)


def _paired(
    ours: Sequence[float], theirs: Sequence[float], combine: Callable[[float, float], float]
) -> Spread:
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds cannot be paired with {len(theirs)}")
    return Spread.of([combine(a, b) for a, b in zip(ours, theirs, strict=True)])
