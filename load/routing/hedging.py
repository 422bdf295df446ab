"""What hedging is worth: `python -m load.routing.hedging --trace FILE`.

Runs the product's rule `latency` and the better classical rules over recorded traffic in the
simulator, each with and without second copies of slow requests, while a node is three times
slower for a minute of every four. Pairs of runs have the same seed. Writes hedging.json (raw) and
hedging.md below the output folder. The mark: hedging is worth switching on when it takes a tenth
off the p99 of `latency`. Exit status 1 when it does not, 2 when a trace cannot be read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edge_runtime.errors import PrimeSparkError
from load.bench.machine import describe, stamp
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.soak import line
from load.options import add_traces, progress
from load.routing.cells import Cell, Result, run_all
from load.routing.judge import UTILISATIONS
from load.routing.report import half_width
from load.simulator.trace import Trace, read_azure
from policies.routing.hedging import HedgeRules

CHECKOUT: Final = Path(__file__).resolve().parents[2]
OURS: Final = "latency"
RULES: Final = (
    OURS,
    "shortest_delay",
    "weighted_least_outstanding",
    "weighted_two_choices",
    "weighted_peak_ewma",
    "weighted_prequal",
)
WORTH: Final = 0.9  # of the p99 without hedging

Pair = tuple[Result, Result]  # without, with


def cells_of(traces: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Yield what to run; each run without hedging stands before its twin with it."""
    for trace in traces:
        for utilisation in UTILISATIONS:
            for rule in RULES:
                for seed in range(1, seeds + 1):
                    for hedge in (False, True):
                        yield Cell(trace, utilisation, False, rule, seed, hedge=hedge)


def pairs_of(results: Sequence[Result]) -> dict[tuple[str, float, str], list[Pair]]:
    """Return the pairs by trace, utilisation and rule."""
    found: dict[tuple[str, float, str], list[Pair]] = {}
    for without, hedged in zip(results[::2], results[1::2], strict=True):
        cell = without.cell
        key = (cell.trace, cell.utilisation, cell.subject)
        found.setdefault(key, []).append((without, hedged))
    return found


def verdicts(pairs: Mapping[tuple[str, float, str], Sequence[Pair]]) -> Iterator[Verdict]:
    """Judge whether hedging is worth it for `latency`, and whether its budget held everywhere."""
    for (trace, utilisation, rule), found in pairs.items():
        if rule == OURS:
            yield judge(
                Mark(f"{trace}, {utilisation:.0%}", "p99 hedged / not", "", "at_most", WORTH),
                Found.median([b.p99_s / a.p99_s for a, b in found]),
            )
    most = HedgeRules().share
    copies = [b.copies for found in pairs.values() for _, b in found]
    yield judge(Mark("all runs", "copies a request", "", "at_most", most), Found.worst(copies))


def markdown(
    document: Mapping[str, Any], pairs: Mapping[tuple[str, float, str], Sequence[Pair]]
) -> str:
    """Return the page; the raw results lie beside it."""
    machine, rules = document["machine"], HedgeRules()
    lines = [
        "# Hedging benchmark",
        "",
        f"{stamp(machine)}. Simulated: "
        f"{document['plan']['seeds']} seeds, {document['runs']} runs, queues by arrival; a copy "
        f"after the {rules.quantile:.0%} quantile of recent delays, at most {rules.share:.0%} of "
        f"requests, where it is expected {rules.margin:.0%} sooner. Medians over pairs of runs of "
        "the same seed, and the half-width of the 95 % interval of their mean. Raw results: "
        "[hedging.json](hedging.json).",
        "",
    ]
    for trace, utilisation in dict.fromkeys(key[:2] for key in pairs):
        lines += [
            f"## {trace}, {utilisation:.0%}",
            "",
            "| rule | p99 ms without | p99 ratio | misses, points | copies % | work % |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            _row(key[2], found) for key, found in pairs.items() if key[:2] == (trace, utilisation)
        ]
        lines.append("")
    lines += ["## Marks", "", *(f"- {line(verdict)}" for verdict in document["marks"])]
    return "\n".join(lines) + "\n"


def _row(rule: str, found: Sequence[Pair]) -> str:
    def figure(of: Callable[[Result, Result], float], form: str) -> str:
        values = [of(a, b) for a, b in found]
        return f"{statistics.median(values):{form}} ± {half_width(values):.2g}"

    cells = (
        figure(lambda a, _: 1e3 * a.p99_s, ".4g"),
        figure(lambda a, b: b.p99_s / a.p99_s, ".3f"),
        figure(lambda a, b: 100 * (b.misses - a.misses), "+.2f"),
        figure(lambda _, b: 100 * b.copies, ".2f"),
        figure(lambda a, b: 100 * (b.busy / a.busy - 1.0), "+.2f"),
    )
    return f"| {rule} | " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, judge and write; 0 when hedging is worth it."""
    parser = argparse.ArgumentParser(
        prog="load.routing.hedging",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add_traces(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the results as well")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.processes < 1:
        parser.error("at least one seed and one process")
    if not options.trace:
        parser.error("nothing to replay: name a --trace")
    try:
        traces: dict[str, Trace] = {t.name: t for t in map(read_azure, options.trace)}
    except (PrimeSparkError, OSError) as error:
        print(f"a trace cannot be read: {error}", file=sys.stderr)
        return 2
    cells = list(cells_of(list(traces), options.seeds))
    began = time.monotonic()
    results = run_all(traces, cells, options.processes, progress(len(cells)))
    pairs = pairs_of(results)
    document: dict[str, Any] = {
        "machine": describe(CHECKOUT),
        "plan": {"seeds": options.seeds, "traces": list(traces), "rules": asdict(HedgeRules())},
        "runs": len(results),
        "took_s": time.monotonic() - began,
        "marks": [asdict(verdict) for verdict in verdicts(pairs)],
        "results": [result.document() for result in results],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "hedging.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "hedging.md").write_text(markdown(document, pairs))
    if options.json:
        print(json.dumps(document, indent=1))
    for verdict in document["marks"]:
        print(line(verdict), file=sys.stderr)
    print(f"{options.out / 'hedging.md'}, {document['took_s']:.0f} s", file=sys.stderr)
    return 0 if all(verdict["is_met"] for verdict in document["marks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
