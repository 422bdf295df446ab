"""Every request of a run, and which of them count.

While the box is off on purpose nothing it fails to do counts against it, and while something was
taken from a model on purpose its refusals do not. Wrong answers, leaks and lost requests outside of
these windows always count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from load.chaos.answers import Kind
from load.chaos.clients import Ended
from load.chaos.models import DIGITS, LONE, LONE_STALE, PLAIN

COUNTED: Final = (DIGITS, PLAIN)  # the others cannot be computed without the device
OFF: Final = "off"
EXCLUDED: Final = "excluded"
ALWAYS: Final = (Kind.WRONG, Kind.LEAK)
_FINE: Final = (Kind.RIGHT, Kind.STALE)


@dataclass(slots=True)
class Window:
    """A time in which a model (all without one, or a client) may fail. until_s: while open, inf."""

    why: str
    since_s: float
    model: str = ""
    stream: str = ""
    until_s: float = float("inf")

    def holds(self, ended: Ended) -> bool:
        """Tell whether a request was under way at some time in it, and is meant."""
        return (
            self.model in ("", ended.model)
            and self.stream in ("", ended.stream)
            and ended.sent_s <= self.until_s
            and ended.ended_s >= self.since_s
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the models that have to be there always. off, excluded: failed in a window."""

    right: int
    refused: int
    late: int
    lost: int
    off: int
    excluded: int

    @property
    def availability(self) -> float:
        """Right answers among those that count; lost ones are a matter of their own."""
        return self.right / max(1, self.right + self.refused + self.late)


@dataclass(slots=True)
class Ledger:
    ended: list[Ended] = field(default_factory=list)
    off: list[Window] = field(default_factory=list)
    excluded: list[Window] = field(default_factory=list)

    def take(self, line: str | bytes) -> None:
        """Note a line of the clients. Raises ValueError for one that is none."""
        told = json.loads(line)
        if isinstance(told, list):
            self.ended.append(Ended(*told))

    def category(self, ended: Ended) -> str:
        """Return how a request counts: a `Kind`, or `off` or `excluded`."""
        if ended.kind in _FINE or ended.kind in ALWAYS:
            return ended.kind
        if any(window.holds(ended) for window in self.off):
            return OFF
        if ended.kind != Kind.LOST and any(window.holds(ended) for window in self.excluded):
            return EXCLUDED
        return ended.kind

    def counts(self) -> Counts:
        """Count the requests of those models that have to be there always."""
        found = Counter(self.category(e) for e in self.ended if e.model in COUNTED)
        return Counts(
            right=found[Kind.RIGHT] + found[Kind.STALE],
            refused=found[Kind.REFUSED],
            late=found[Kind.LATE],
            lost=found[Kind.LOST],
            off=found[OFF],
            excluded=found[EXCLUDED],
        )

    def of(self, *kinds: str) -> list[Ended]:
        """Return the requests, of any model, that count as one of these."""
        return [ended for ended in self.ended if self.category(ended) in kinds]

    def without_reason(self) -> list[Ended]:
        """Return refusals that say no code."""
        return [e for e in self.ended if e.kind in (Kind.REFUSED, Kind.LATE) and not e.code]

    def in_flight(self, at_s: float) -> list[Ended]:
        """Return digits' requests that were under way at a moment and were answered."""
        return [
            e
            for e in self.ended
            if e.model == DIGITS and e.kind == Kind.RIGHT and e.sent_s <= at_s < e.ended_s
        ]

    def bereft(self) -> Mapping[str, int]:
        """Return how requests for the models that only the device can compute have ended."""
        found = Counter(
            f"{e.model} {self.category(e)}" for e in self.ended if e.model in (LONE, LONE_STALE)
        )
        return dict(sorted(found.items()))

    def rungs(self) -> Mapping[str, int]:
        """Return how many answers each rung gave, over all models."""
        return dict(Counter(e.rung for e in self.ended if e.rung).most_common())


def latencies_ms(ended: Iterable[Ended]) -> Sequence[float]:
    """Return how long requests took from when they were due, in order."""
    return sorted((e.ended_s - e.due_s) * 1e3 for e in ended)
