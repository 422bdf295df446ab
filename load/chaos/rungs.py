"""When the top rung of a model was lost, when it came back, and when it only seemed to.

A flap is a fall within `FLAP_S` of a return with no fault injected in between: the product trusted
what it should not have. Times are seconds on one clock, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

FLAP_S: Final = 2.0
STEADY_S: Final = 2.5  # on the top rung without a break, before it counts as back


@dataclass(frozen=True, slots=True)
class Change:
    """From then on, whether the top rung computes. why: what the product says when it does not."""

    at_s: float
    is_top: bool
    why: str = ""


class History:
    """What was seen of one ladder."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.seen_s = 0.0

    def saw(self, at_s: float, *, is_top: bool, why: str = "") -> None:
        """Note what is so now; times do not go back."""
        self.seen_s = at_s
        if not self.changes or self.changes[-1].is_top != is_top:
            self.changes.append(Change(at_s, is_top, why))

    def top_since(self) -> float | None:
        """Return since when the top rung has computed without a break; None when it does not."""
        last = self.changes[-1] if self.changes else None
        return last.at_s if last is not None and last.is_top else None

    def fell_after(self, at_s: float) -> bool:
        """Tell whether the top rung was lost since then, or is away."""
        away = [change for change in self.changes if not change.is_top and change.at_s >= at_s]
        return bool(away) or self.top_since() is None


def flaps(changes: Sequence[Change], strikes: Sequence[float]) -> list[float]:
    """Return the times of falls that nobody caused so soon after a return. strikes: of faults."""
    found = []
    for back, fall in pairwise(changes):
        if not back.is_top or fall.is_top or back is changes[0]:
            continue
        is_caused = any(back.at_s <= strike <= fall.at_s for strike in strikes)
        if fall.at_s - back.at_s <= FLAP_S and not is_caused:
            found.append(fall.at_s)
    return found


def most_within(times: Sequence[float], span_s: float) -> int:
    """Return how many of these times there are at most in a span, wherever it begins."""
    ordered = sorted(times)
    return max(
        (sum(begin <= at < begin + span_s for at in ordered) for begin in ordered), default=0
    )
