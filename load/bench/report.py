"""A run as a Markdown page: marks first, then what stands behind them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from load.bench.marks import Verdict, series
from load.bench.rounds import Outcome, Plan
from load.bench.stats import paired_ratios
from load.bench.subjects import Candidate, Subject

OURS = "prime-spark-colocated"
_HOW = {"ratio_at_most": "≤", "ratio_at_least": "≥", "difference_at_most": "≤"}


def markdown(
    name: str,
    machine: Mapping[str, Any],
    plan: Plan,
    candidates: Sequence[Candidate],
    outcome: Outcome,
    verdicts: Sequence[Verdict],
    settings: str,
) -> str:
    """Return the page; `name` is that of the JSON and SVG files beside it."""
    subjects = [subject for candidate in candidates for subject in candidate.subjects]
    lines = [
        "# Serving benchmark",
        "",
        *_about(name, machine, plan),
        "",
        f"![Latency and throughput]({name}.svg)",
        "",
        "## Pass marks",
        "",
        *_marks(verdicts),
        "",
        *_tables(plan, subjects, outcome),
        "## Memory and cold start",
        "",
        *_resources(candidates, outcome),
        "",
        "## How it was measured",
        "",
        settings.strip(),
        "",
    ]
    return "\n".join(lines)


def _about(name: str, machine: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    changed = " with local changes" if machine["has_local_changes"] else ""
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    yield (
        f"{machine['date']}, commit `{machine['commit'][:12]}`{changed}; {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, {packages}. Load average before: "
        f"{machine['load_before'][0]}."
    )
    yield ""
    yield (
        f"{plan.rounds} interleaved rounds, {plan.measure_s:g} s for each measurement after "
        f"{plan.warm_s:g} s of warming; figures are medians over rounds, ratios are medians of "
        f"the rounds' ratios with their extremes. Raw results: [{name}.json]({name}.json)."
    )


def _marks(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "| mark | model | clients | limit | found (least to most) | met |"
    yield "|---|---|---|---|---|---|"
    for verdict in verdicts:
        mark, found = verdict.mark, verdict.found
        yield (
            f"| {mark.title} | {mark.model} | {mark.clients} | {_HOW[mark.how]} {mark.limit:g} "
            f"| {found.median:.2f} ({found.least:.2f} to {found.most:.2f}) "
            f"| {'yes' if verdict.is_met else '**no**'} |"
        )


def _tables(plan: Plan, subjects: Sequence[Subject], outcome: Outcome) -> Iterator[str]:
    models = list(dict.fromkeys(m.model for m in outcome.measurements))
    for model in models:
        for clients in plan.clients:
            yield f"## {model}, {clients} client{'s' if clients > 1 else ''}"
            yield ""
            yield (
                "| server | p50 ms | p95 ms | p99 ms | answers/s "
                "| our p50 ÷ its | our answers/s ÷ its | server CPU ms an answer | failures |"
            )
            yield "|---|---|---|---|---|---|---|---|---|"
            for subject in subjects:
                row = _row(outcome, model, clients, subject)
                if row is not None:
                    yield row
            yield ""


def _row(outcome: Outcome, model: str, clients: int, subject: Subject) -> str | None:
    def values(metric: str, name: str = subject.name) -> list[float]:
        return series(outcome.measurements, model, clients, name, metric)

    if not values("per_s"):
        return None
    ratios = []
    for metric in ("p50_ms", "per_s"):
        ours = values(metric, OURS)
        if not ours or subject.name == OURS:
            ratios.append("")
            continue
        found = paired_ratios(ours, values(metric))
        ratios.append(f"{found.median:.2f} ({found.least:.2f} to {found.most:.2f})")
    own = [
        m
        for m in outcome.measurements
        if (m.model, m.clients, m.subject) == (model, clients, subject.name)
    ]
    cpu = [m.server_cpu_ms for m in own if m.server_cpu_ms is not None]
    cells = [
        subject.title,
        *(f"{statistics.median(values(p)):.2f}" for p in ("p50_ms", "p95_ms", "p99_ms")),
        f"{statistics.median(values('per_s')):,.0f}",
        *ratios,
        f"{statistics.median(cpu):.2f}" if cpu else "",
        str(sum(m.measured.failures for m in own)),
    ]
    return "| " + " | ".join(cells) + " |"


def _resources(candidates: Sequence[Candidate], outcome: Outcome) -> Iterator[str]:
    yield (
        "Memory is the proportional set size of the whole process tree, shared pages counted "
        "once. Cold start is from process start until every way to call the server has answered "
        "for both models."
    )
    yield ""
    yield "| server | processes | PSS at rest, MB | PSS after the rounds, MB | cold start, s |"
    yield "|---|---|---|---|---|"
    for candidate in candidates:
        if candidate.launch is None:
            continue
        rest, after = outcome.at_rest[candidate.name], outcome.after[candidate.name]
        starts = outcome.cold_start_s[candidate.name]
        yield (
            f"| {candidate.name} | {rest.processes} | {rest.pss_bytes / 1e6:.0f} "
            f"| {after.pss_bytes / 1e6:.0f} | {statistics.median(starts):.1f} "
            f"({min(starts):.1f} to {max(starts):.1f}) |"
        )
