"""What a routing decision costs: `python -m load.routing.decision`.

Times decisions over tables of several sizes that are as full of evidence as tables in use: with
errors, sizes and work ahead. With each of them goes what keeps the table: a send, and an answer
that brings a load. A loop of many decisions then shows whether anything grows. Writes
decision.json and decision.md below the output folder; exit status 1 when a limit does not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil

from load.bench.machine import describe, measured_on
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.soak import line
from policies.routing import (
    Decision,
    Load,
    Objective,
    Request,
    RoutingTable,
    Rule,
    Target,
    choose,
    learned,
)
from policies.routing.learner import Learner
from policies.routing.types import SLACKS

CHECKOUT: Final = Path(__file__).resolve().parents[2]
LIMITS_US: Final = {8: 25.0, 1024: 150.0}
LEARNED_LIMIT_US: Final = 60.0  # with 8 targets
SIZES: Final = (3, 8, 64, 1024)
GROWTH_MB: Final = 2.0  # what the allocator may keep for itself


def full_table(count: int, seed: int = 1) -> RoutingTable:
    """Return a table of so many targets that has seen a few hundred requests for each of them."""
    rng = random.Random(seed)  # noqa: S311 (what was seen)
    table = RoutingTable(
        Target(
            f"target-{i}",
            ("edge", "cloud")[i % 2],
            f"site-{i % 16}",
            rtt_s=rng.uniform(0.002, 0.06),
            usd_per_s=rng.uniform(0.0, 2e-4),
            usd_per_byte=9e-11,
        )
        for i in range(count)
    )
    now = 0.0
    for target in list(table.targets):
        service_s = rng.uniform(0.005, 0.1)
        for _ in range(160):
            now += 0.01
            sent = table.sent(target.name, example_request(rng), now)
            taken_s = target.rtt_s + service_s * rng.lognormvariate(0.0, 0.4)
            table.answered(sent, now + taken_s, example_load(rng, service_s), now + taken_s)
    for target in table.targets:
        table.heard(target.name, example_load(rng, target.service_s), now)
    return table


def example_request(rng: random.Random) -> Request:
    return Request(
        slack_s=rng.choice((0.15, 1.0, 30.0)),
        bucket=rng.randrange(8, 20),
        moved_bytes=rng.randrange(100, 1_000_000),
        tiers=frozenset({"edge", "cloud"}),
        origin_site="site-3",
    )


def example_load(rng: random.Random, service_s: float) -> Load:
    waits_s = rng.uniform(0.0, 0.05)
    return Load(
        ahead_s=(waits_s,) * len(SLACKS),
        service_s=service_s,
        row_s=0.5 * service_s,
        busy=rng.random(),
        alone_s=service_s * rng.uniform(0.8, 1.2),
    )


class Believed(Learner):
    """A model that is believed from the first request on."""

    __slots__ = ()

    def is_believed(self, objective: Objective) -> bool:
        return True


def measure(count: int, decisions: int, seed: int = 1, rule: Rule = choose) -> dict[str, Any]:
    """Time decisions, and what goes with them, over a table of so many targets.

    rule: that of the model is measured as it is while the model is believed.
    """
    table, rng = full_table(count, seed), random.Random(seed)  # noqa: S311 (which request comes)
    if rule is learned.choose:
        table.learner = Believed()
    now = table.targets[0].heard_at
    requests = [example_request(rng) for _ in range(64)]
    loads = [example_load(rng, 0.02) for _ in range(64)]
    deciding: list[float] = []
    keeping: list[float] = []
    for index in range(decisions):
        now += 0.001
        request = requests[index % 64]
        began = time.perf_counter()
        decision = rule(request, table, now)
        decided = time.perf_counter()
        if not isinstance(decision, Decision):
            raise RuntimeError("a table in which nothing may serve is no measure")
        table.decided(decision, request.objective)
        sent = table.sent(decision.target, request, now)
        table.answered(sent, now + 0.05, loads[index % 64], now + 0.05)
        deciding.append(decided - began)
        keeping.append(time.perf_counter() - decided)
    return {
        "targets": count,
        "decisions": decisions,
        "decision_us": _spread(deciding),
        "table_us": _spread(keeping),
    }


def growth_mb(decisions: int, count: int = 8) -> float:
    """Return by how much the process grew over so many decisions, sends and answers."""
    process = psutil.Process()
    measure(count, decisions // 20)
    table, rng = full_table(count), random.Random(2)  # noqa: S311 (which request comes)
    now = table.targets[0].heard_at
    requests = [example_request(rng) for _ in range(64)]
    loads = [example_load(rng, 0.02) for _ in range(64)]
    before = 0
    for index in range(decisions):
        if index == decisions // 10:
            before = process.memory_info().rss
        now += 0.001
        request = requests[index % 64]
        decision = choose(request, table, now)
        if not isinstance(decision, Decision):
            raise RuntimeError("a table in which nothing may serve is no measure")
        table.decided(decision, request.objective)
        sent = table.sent(decision.target, request, now)
        table.answered(sent, now + 0.05, loads[index % 64], now + 0.05)
    return float(process.memory_info().rss - before) / 1e6


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": 1e6 * cuts[49], "p99": 1e6 * cuts[98]}


def verdicts(
    measured: Sequence[dict[str, Any]],
    learned_rule: Sequence[dict[str, Any]],
    grown_mb: float,
    decisions: int,
) -> list[Verdict]:
    """Judge the rounds: the median of the rounds' medians counts."""
    found: list[Verdict] = []
    for count, limit_us in LIMITS_US.items():
        p50 = [m["decision_us"]["p50"] for m in measured if m["targets"] == count]
        mark = Mark(f"{count} targets", "p50 of a decision", "us", "at_most", limit_us)
        found.append(judge(mark, Found.median(p50)))
    p50 = [m["decision_us"]["p50"] for m in learned_rule]
    mark = Mark("8 targets", "p50 of a decision by the model", "us", "at_most", LEARNED_LIMIT_US)
    found.append(judge(mark, Found.median(p50)))
    mark = Mark("8 targets", f"growth over {decisions:,} decisions", "MB", "at_most", GROWTH_MB)
    return [*found, judge(mark, Found(grown_mb, grown_mb, grown_mb))]


def _summary(document: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Return what was measured to (p50 and p99 of a decision, p50 of the table), medians, us."""
    groups = {
        f"{count:,} targets": [m for m in document["measured"] if m["targets"] == count]
        for count in SIZES
    }
    groups["8 targets, by the model"] = document["learned"]
    return {
        name: (
            statistics.median(m["decision_us"]["p50"] for m in rows),
            statistics.median(m["decision_us"]["p99"] for m in rows),
            statistics.median(m["table_us"]["p50"] for m in rows),
        )
        for name, rows in groups.items()
    }


def markdown(document: Mapping[str, Any]) -> str:
    """Return the page."""
    machine = document["machine"]
    return "\n".join(
        [
            "# What a decision costs",
            "",
            f"{measured_on(machine)}. Raw results: [decision.json](decision.json).",
            "",
            "Microseconds, medians over rounds, by tables full of evidence. The table's own: a "
            "send and an answer that brings a load.",
            "",
            "| table | decision p50 | decision p99 | table p50 |",
            "|---|---|---|---|",
            *(
                f"| {name} | {p50:.1f} | {p99:.1f} | {table:.1f} |"
                for name, (p50, p99, table) in _summary(document).items()
            ),
            "",
            "| what | found | rounds | limit | |",
            "|---|---|---|---|---|",
            *(
                f"| {one['mark']['subject']}: {one['mark']['title']} "
                f"| {one['found']['value']:.1f} {one['mark']['unit']} "
                f"| {one['found']['least']:.1f} to {one['found']['most']:.1f} "
                f"| {one['mark']['limit']:g} | {'held' if one['is_met'] else '**not held**'} |"
                for one in document["marks"]
            ),
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge and write; 0 when every limit holds."""
    parser = argparse.ArgumentParser(
        prog="load.routing.decision",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decisions", type=int, default=5_000, help="of a size in a round")
    parser.add_argument("--long", type=int, default=1_000_000, help="decisions for the growth")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.decisions < 100 or options.long < 100:
        parser.error("at least one round and a hundred decisions")
    measured = [
        measure(count, options.decisions, seed)
        for seed in range(1, options.rounds + 1)
        for count in SIZES
    ]
    by_model = [
        measure(8, options.decisions, seed, learned.choose) for seed in range(1, options.rounds + 1)
    ]
    marks = verdicts(measured, by_model, growth_mb(options.long), options.long)
    document: dict[str, Any] = {
        "machine": describe(CHECKOUT),
        "measured": measured,
        "learned": by_model,
        "marks": [asdict(verdict) for verdict in marks],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "decision.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "decision.md").write_text(markdown(document))
    for name, values in _summary(document).items():
        print(
            f"{name}: decision p50 {values[0]:.1f} us, p99 {values[1]:.1f}; table {values[2]:.1f}"
        )
    for verdict in document["marks"]:
        print(line(verdict))
    return 0 if all(verdict.is_met for verdict in marks) else 1


if __name__ == "__main__":
    sys.exit(main())
