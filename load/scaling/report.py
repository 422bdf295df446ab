"""The scaling benchmark as a Markdown page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from load.bench.machine import stamp
from load.routing.report import half_width, mark_row
from load.scaling.cells import VARIANTS, Result, Variant
from load.scaling.judge import Table
from load.scaling.rules import SUBJECTS
from load.scaling.simulation import COLD_S, PATIENCE_S, SLOTS, WORK_PER_S


def markdown(name: str, document: Mapping[str, Any], table: Table) -> str:
    """Return the page. name: of the JSON and SVG files beside it."""
    machine = document["machine"]
    held = sum(verdict["is_met"] for verdict in document["marks"])
    lines = [
        "# Scaling benchmark",
        "",
        f"{stamp(machine)}. Simulated: "
        f"{document['plan']['seeds']} seeds, {document['runs']} runs; what is shown are medians "
        "over seeds with the half-width of their 95 % interval, and marks compare runs of the same "
        f"seed. Raw results: [{name}.json]({name}.json). What decides: "
        "[scaling](../explanation/scaling.md).",
        "",
        f"A replica does {WORK_PER_S:g} work a second in {SLOTS} slots and needs {COLD_S:g} s to "
        "start, give or take a fifth; the mean load would keep "
        f"{document['plan']['load']:g} replicas busy. A miss waits for more than {PATIENCE_S:g} s. "
        "Rules decide once a second, and what replicas do is learned from their answers. Every "
        "trace is run to its end, the first day without a season included. The predictive rule is "
        "told of a day of 24 minutes (8 on `weekly`), also where nothing repeats. Of a recorded "
        "trace each request stands for several within a second.",
        "",
        *(f"- `{subject}`: {entry.title}" for subject, entry in SUBJECTS.items()),
        "",
        f"![Replicas and misses]({name}.svg)",
        "",
        f"## Marks: {held} of {len(document['marks'])} held",
        "",
        "Elsewhere than on seasonal traffic, the rule to compare with is the better of "
        "`serve_tuned` and `knative`: the one with fewer misses, or, within 0.05 points, the one "
        "with fewer replicas. Where replicas become slower nothing is judged: that is a fault and "
        "no load, and who fills replicas less has more room for it, and more replicas.",
        "",
        "| where | mark | limit | found (least to most) | held |",
        "|---|---|---|---|---|",
        *(mark_row(verdict) for verdict in document["marks"]),
        "",
    ]
    for trace, variant in table.scenes():
        lines += _table(table, trace, variant)
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table, trace: str, variant: Variant) -> Iterator[str]:
    yield f"## {Path(trace).stem}{VARIANTS[variant]}"
    yield ""
    yield "| rule | replicas | misses % | p99 wait s | changes | forecast followed % |"
    yield "|---|---|---|---|---|---|"
    for subject in table.subjects(trace, variant):
        yield _row(subject, table.get(trace, variant, subject))
    yield ""


def _row(subject: str, found: Sequence[Result]) -> str:
    def figure(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.4g} ± {half_width(values):.2g}"

    cells = (
        figure([result.replicas for result in found]),
        figure([100 * result.misses for result in found]),
        figure([result.p99_wait_s for result in found]),
        figure([float(result.changes) for result in found]),
        f"{100 * statistics.median(result.trusted for result in found):.0f}",
    )
    return f"| {subject} | " + " | ".join(cells) + " |"
