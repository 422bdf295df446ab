"""The marks of the routing benchmark, from its results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from load.edge.marks import Found, Mark, Verdict, judge
from load.routing.cells import BINS, Result
from load.routing.rules import SUBJECTS
from load.simulator.trace import Trace

BURSTY: Final = 5.0  # `Trace.burstiness` from which traffic counts as bursty
FEW: Final = 200  # requests of a bin, below which its share says nothing
UTILISATIONS: Final = (0.3, 0.6, 0.85)
OVERLOADED: Final = 1.2


class Table:
    """Results by trace, utilisation, discipline, fault and subject; each has one for each seed."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._found: dict[tuple[str, float, bool, str, str], list[Result]] = {}
        for result in results:
            cell = result.cell
            key = (cell.trace, cell.utilisation, cell.by_deadline, cell.fault, cell.subject)
            self._found.setdefault(key, []).append(result)

    def get(
        self,
        trace: str,
        utilisation: float,
        *,
        by_deadline: bool,
        subject: str,
        fault: str = "throttle",
    ) -> list[Result]:
        return self._found[trace, utilisation, by_deadline, fault, subject]

    def subjects(self, trace: str, utilisation: float, *, by_deadline: bool) -> list[str]:
        wanted = (trace, utilisation, by_deadline, "throttle")
        return [key[4] for key in self._found if key[:4] == wanted]


def verdicts(table: Table, traces: Mapping[str, Trace]) -> Iterator[Verdict]:
    """Judge every line on every trace."""
    for name, trace in traces.items():
        for utilisation in UTILISATIONS:
            yield from _latency(table, name, utilisation)
            yield from _balanced(table, name, utilisation, trace.burstiness > BURSTY)
        for utilisation in (*UTILISATIONS, OVERLOADED):
            yield from _goodput(table, name, utilisation)
        yield from _calibration(table, name)
        yield from _cut(table, name)


def _latency(table: Table, trace: str, utilisation: float) -> Iterator[Verdict]:
    def get(subject: str) -> list[Result]:
        return table.get(trace, utilisation, by_deadline=False, subject=subject)

    where = f"{trace}, {utilisation:.0%}, queues by arrival"
    ours = get("latency")
    yield judge(
        Mark(where, "p99 of `latency` / omniscient", "", "at_most", 1.3),
        _paired(ours, get("omniscient"), lambda a, b: _ratio(a.p99_s, b.p99_s)),
    )
    weighted = [name for name, subject in SUBJECTS.items() if subject.weighted]
    best = min(weighted, key=lambda name: statistics.median(r.p99_s for r in get(name)))
    yield judge(
        Mark(where, f"p99 of `latency` / best weighted rule ({best})", "", "at_most", 1.1),
        _paired(ours, get(best), lambda a, b: _ratio(a.p99_s, b.p99_s)),
    )


def _balanced(table: Table, trace: str, utilisation: float, is_bursty: bool) -> Iterator[Verdict]:
    def get(subject: str) -> list[Result]:
        return table.get(trace, utilisation, by_deadline=True, subject=subject)

    where = f"{trace}, {utilisation:.0%}, queues by deadline"
    ours, theirs = get("balanced"), get("latency")
    yield judge(
        Mark(where, "misses of `balanced` - `latency`", "points", "at_most", 0.5),
        _paired(ours, theirs, lambda a, b: 100.0 * (a.misses - b.misses)),
    )
    kind, limit = ("bursty", 0.95) if is_bursty else ("calm", 0.85)
    yield judge(
        Mark(where, f"cost of `balanced` / `latency` ({kind})", "", "at_most", limit),
        _paired(ours, theirs, lambda a, b: _ratio(a.cost_usd, b.cost_usd)),
    )


def _goodput(table: Table, trace: str, utilisation: float) -> Iterator[Verdict]:
    def get(subject: str) -> list[Result]:
        return table.get(trace, utilisation, by_deadline=True, subject=subject)

    where = f"{trace}, {utilisation:.0%}, queues by deadline"
    ours, bound = get("balanced"), get("omniscient")
    yield judge(
        Mark(where, "goodput of `balanced` / omniscient", "", "at_least", 0.95),
        _paired(ours, bound, lambda a, b: _ratio(1 - a.misses, 1 - b.misses)),
    )
    yield judge(
        Mark(where, "interactive goodput of `balanced` / omniscient", "", "at_least", 0.93),
        _paired(ours, bound, lambda a, b: _ratio(1 - a.interactive, 1 - b.interactive)),
    )


def _calibration(table: Table, trace: str) -> Iterator[Verdict]:
    for by_deadline in (True, False):
        order = "deadline" if by_deadline else "arrival"
        for index, (least, most) in enumerate(pairwise(BINS)):
            parts = [
                result.calibration[index]
                for utilisation in UTILISATIONS
                for result in table.get(
                    trace, utilisation, by_deadline=by_deadline, subject="balanced"
                )
            ]
            total = sum(count for count, _, _ in parts)
            if total < FEW:
                continue
            predicted = sum(count * share for count, share, _ in parts) / total
            observed = sum(count * share for count, _, share in parts) / total
            apart = [abs(a - b) for count, a, b in parts if count >= FEW] or [0.0]
            yield judge(
                Mark(
                    f"{trace}, queues by {order}",
                    f"P(late) {least:g} to {most:g}, observed apart from predicted",
                    "",
                    "at_most",
                    0.1,
                ),
                Found(abs(observed - predicted), min(apart), max(apart)),
            )


def _cut(table: Table, trace: str) -> Iterator[Verdict]:
    ours = table.get(trace, 0.3, by_deadline=True, subject="balanced", fault="cut")
    fifo = table.get(trace, 0.3, by_deadline=False, subject="shortest_delay_replies", fault="cut")
    bound = table.get(trace, 0.3, by_deadline=True, subject="omniscient", fault="cut")
    where = f"{trace}, 30%, a site cut off for 5 minutes"
    yield judge(
        Mark(where, "misses of `balanced` / expected delay, by arrival", "", "at_most", 0.6),
        _paired(ours, fifo, lambda a, b: _ratio(a.misses, b.misses)),
    )
    yield judge(
        Mark(where, "goodput meanwhile / omniscient", "", "at_least", 0.95),
        _paired(ours, bound, lambda a, b: _ratio(1 - a.cut_misses, 1 - b.cut_misses)),
    )
    yield judge(
        Mark(where, "requests sent to a dead target after 2 s", "", "at_most", 0),
        Found.worst([float(result.dead_sends) for result in ours]),
    )


def _paired(
    ours: Sequence[Result], theirs: Sequence[Result], compare: Callable[[Result, Result], float]
) -> Found:
    return Found.median([compare(a, b) for a, b in zip(ours, theirs, strict=True)])


def _ratio(ours: float, theirs: float) -> float:
    """Return ours / theirs; two that are nothing are alike."""
    if theirs:
        return ours / theirs
    return float("inf") if ours else 1.0
