"""The routing benchmark as a Markdown page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from load.bench.machine import stamp
from load.routing.cells import Result
from load.routing.judge import OVERLOADED, UTILISATIONS, Table
from load.simulator.trace import Trace

# Two-sided 95 % of Student's t by degrees of freedom.
_T95: Final = {1: 12.7, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def markdown(
    name: str, document: Mapping[str, Any], table: Table, traces: Mapping[str, Trace]
) -> str:
    """Return the page. name: of the JSON and SVG files beside it."""
    machine = document["machine"]
    held = sum(verdict["is_met"] for verdict in document["marks"])
    lines = [
        "# Routing benchmark",
        "",
        f"{stamp(machine)}. Simulated: "
        f"{document['plan']['seeds']} seeds, {document['runs']} runs; what is shown are medians "
        "over seeds with the half-width of their 95 % interval, and marks compare runs of the same "
        f"seed. Raw results: [{name}.json]({name}.json). How to read it: "
        "[the simulator](../explanation/simulator.md).",
        "",
        *(
            f"Trace `{trace.name}`: {len(trace.times):,} requests, burstiness "
            f"{trace.burstiness:.1f}."
            for trace in traces.values()
        ),
        "",
        f"![Cost and misses]({name}.svg)",
        "",
        f"## Marks: {held} of {len(document['marks'])} held",
        "",
        "| where | mark | limit | found (least to most) | held |",
        "|---|---|---|---|---|",
        *(mark_row(verdict) for verdict in document["marks"]),
        "",
    ]
    for trace in traces:
        lines += _tables(table, trace)
    return "\n".join(lines).rstrip() + "\n"


def mark_row(verdict: Mapping[str, Any]) -> str:
    """Return the row of a verdict in a table of marks."""
    mark, found = verdict["mark"], verdict["found"]
    sign = "≤" if mark["how"] == "at_most" else "≥"
    return (
        f"| {mark['subject']} | {mark['title']} | {sign} {mark['limit']:g} {mark['unit']} "
        f"| {found['value']:.3g} ({found['least']:.3g} to {found['most']:.3g}) "
        f"| {'yes' if verdict['is_met'] else '**no**'} |"
    )


def _tables(table: Table, trace: str) -> Iterator[str]:
    for by_deadline in (False, True):
        order = "queues by deadline, the hopeless dropped" if by_deadline else "queues by arrival"
        loads = (*UTILISATIONS, OVERLOADED) if by_deadline else UTILISATIONS
        for utilisation in loads:
            yield f"## {trace}, {utilisation:.0%}, {order}"
            yield ""
            yield "| rule | p50 ms | p95 ms | p99 ms | misses % | interactive % | micro-$ |"
            yield "|---|---|---|---|---|---|---|"
            for subject in table.subjects(trace, utilisation, by_deadline=by_deadline):
                found = table.get(trace, utilisation, by_deadline=by_deadline, subject=subject)
                yield _row(subject, found)
            yield ""


def _row(subject: str, found: Sequence[Result]) -> str:
    def figure(values: Sequence[float]) -> str:
        middle = statistics.median(values)
        return f"{middle:.4g} ± {half_width(values):.2g}"

    cells = (
        figure([1e3 * result.p50_s for result in found]),
        figure([1e3 * result.p95_s for result in found]),
        figure([1e3 * result.p99_s for result in found]),
        figure([100 * result.misses for result in found]),
        figure([100 * result.interactive for result in found]),
        figure([1e6 * result.cost_usd for result in found]),
    )
    return f"| {subject} | " + " | ".join(cells) + " |"


def half_width(values: Sequence[float]) -> float:
    """Return half of the 95 % confidence interval of the mean (Student's t); 0 for one value."""
    count = len(values)
    if count < 2:
        return 0.0
    return _T95.get(count - 1, 2.0) * statistics.stdev(values) / math.sqrt(count)
