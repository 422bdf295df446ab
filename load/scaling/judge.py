"""The marks of the scaling benchmark, from its results.

Marks are of loads. Replicas that become slower at once are a fault; what that costs is shown and
not judged (`UNJUDGED`): who fills replicas less has more room for it, and more replicas.

Seasonal traffic has marks of its own. Elsewhere the rule is compared with the better of tuned Serve
and the Knative-like rule: the one with fewer misses, or where these are alike (within 0.05 points)
the one with fewer replicas. Both axes are compared with that same one, run by run of the same seed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from load.edge.marks import Found, Mark, Verdict, judge
from load.scaling.cells import VARIANTS, Result, Variant

OURS: Final = "predictive"
RIVALS: Final = ("serve_tuned", "knative")
ALIKE: Final = 0.05  # points
WITHIN: Final = 1.05
UNJUDGED: Final[frozenset[Variant]] = frozenset({"slower"})


class Table:
    """Results by trace, variant and subject; each has one for each seed."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._found: dict[tuple[str, Variant, str], list[Result]] = {}
        for result in results:
            cell = result.cell
            self._found.setdefault((cell.trace, cell.variant, cell.subject), []).append(result)

    def get(self, trace: str, variant: Variant, subject: str) -> list[Result]:
        return self._found[trace, variant, subject]

    def scenes(self) -> list[tuple[str, Variant]]:
        """Return what was run, without the subjects."""
        return list(dict.fromkeys((trace, variant) for trace, variant, _ in self._found))

    def subjects(self, trace: str, variant: Variant) -> list[str]:
        return [key[2] for key in self._found if key[:2] == (trace, variant)]


def verdicts(table: Table) -> Iterator[Verdict]:
    """Judge every scene."""
    for trace, variant in table.scenes():
        if variant in UNJUDGED:
            continue
        where = f"{trace}{VARIANTS[variant]}"
        ours = table.get(trace, variant, OURS)
        if (trace, variant) == ("seasonal", "plain"):
            yield judge(
                Mark(where, "replica-seconds / tuned Serve", "", "at_most", 0.92),
                _paired(ours, table.get(trace, variant, "serve_tuned"), _replicas),
            )
            yield judge(
                Mark(where, "misses", "%", "at_most", 0.1),
                Found.median([100.0 * result.misses for result in ours]),
            )
            continue
        rival = better(table, trace, variant)
        theirs = table.get(trace, variant, rival)
        yield judge(
            Mark(where, f"misses beyond {WITHIN} x those of {rival}", "points", "at_most", ALIKE),
            _paired(ours, theirs, lambda a, b: 100.0 * (a.misses - WITHIN * b.misses)),
        )
        yield judge(
            Mark(where, f"replica-seconds / {rival}", "", "at_most", WITHIN),
            _paired(ours, theirs, _replicas),
        )


def better(table: Table, trace: str, variant: Variant) -> str:
    """Return which of the rivals to compare with."""

    def middle(subject: str, figure: Callable[[Result], float]) -> float:
        return statistics.median(figure(result) for result in table.get(trace, variant, subject))

    misses = {rival: 100.0 * middle(rival, lambda r: r.misses) for rival in RIVALS}
    if abs(misses[RIVALS[0]] - misses[RIVALS[1]]) <= ALIKE:
        return min(RIVALS, key=lambda rival: middle(rival, lambda r: r.replicas))
    return min(RIVALS, key=lambda rival: misses[rival])


def _replicas(ours: Result, theirs: Result) -> float:
    return ours.replicas / theirs.replicas


def _paired(
    ours: Sequence[Result], theirs: Sequence[Result], compare: Callable[[Result, Result], float]
) -> Found:
    return Found.median([compare(a, b) for a, b in zip(ours, theirs, strict=True)])
