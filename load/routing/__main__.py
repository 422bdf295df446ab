"""Compare routing rules in the simulator and write the page: `python -m load.routing`.

Runs every rule on one or more recorded traces and on generated calm traffic, at several
utilisations, with queues by arrival and by deadline, and under a partition. Writes NAME.json (raw),
NAME.md (marks, tables) and NAME.svg below the output folder. Exit status 1 when a mark does not
hold, 2 when a trace cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_runtime.errors import PrimeSparkError
from load.bench.machine import describe
from load.edge.soak import line
from load.options import add_traces, progress
from load.routing.cells import Cell, run_all
from load.routing.judge import OVERLOADED, UTILISATIONS, Table, verdicts
from load.routing.plot import draw
from load.routing.report import markdown
from load.routing.rules import BY_ARRIVAL, SERIOUS
from load.simulator.trace import Trace, calm, read_azure

CHECKOUT = Path(__file__).resolve().parents[2]
CALM_SEED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, judge and write; 0 when every mark holds."""
    parser = argparse.ArgumentParser(
        prog="load.routing", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_traces(parser)
    parser.add_argument("--no-calm", action="store_true", help="leave the generated traffic out")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="print the results as well")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    parser.add_argument("--name", default="routing", help="of the files written")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.processes < 1:
        parser.error("at least one seed and one process")
    if options.no_calm and not options.trace:
        parser.error("nothing to replay: name a --trace, or leave --no-calm out")
    try:
        traces = _traces(options.trace, with_calm=not options.no_calm)
    except (PrimeSparkError, OSError) as error:
        print(f"a trace cannot be read: {error}", file=sys.stderr)
        return 2
    cells = list(cells_of(list(traces), options.seeds))
    began = time.monotonic()
    results = run_all(traces, cells, options.processes, progress(len(cells)))
    table = Table(results)
    document: dict[str, Any] = {
        "machine": describe(CHECKOUT),
        "plan": {"seeds": options.seeds, "traces": list(traces)},
        "runs": len(results),
        "took_s": time.monotonic() - began,
        "marks": [asdict(verdict) for verdict in verdicts(table, traces)],
        "results": [result.document() for result in results],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / f"{options.name}.md").write_text(markdown(options.name, document, table, traces))
    draw(options.out / f"{options.name}.svg", table, traces)
    if options.json:
        print(json.dumps(document, indent=1))
    for verdict in document["marks"]:
        print(line(verdict), file=sys.stderr)
    print(f"{options.out / options.name}.md, {document['took_s']:.0f} s", file=sys.stderr)
    return 0 if all(verdict["is_met"] for verdict in document["marks"]) else 1


def cells_of(traces: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Yield everything to run."""
    for trace in traces:
        for seed in range(1, seeds + 1):
            for utilisation in UTILISATIONS:
                for subject in BY_ARRIVAL:
                    yield Cell(trace, utilisation, False, subject, seed)
            for utilisation in (*UTILISATIONS, OVERLOADED):
                for subject in SERIOUS:
                    yield Cell(trace, utilisation, True, subject, seed)
            for subject, by_deadline in (
                ("balanced", True),
                ("omniscient", True),
                ("shortest_delay_replies", False),
            ):
                yield Cell(trace, 0.3, by_deadline, subject, seed, "cut")


def _traces(files: Sequence[Path], *, with_calm: bool) -> dict[str, Trace]:
    found = {trace.name: trace for trace in (read_azure(file) for file in files)}
    if with_calm:
        found["calm"] = calm(CALM_SEED)
    return found


if __name__ == "__main__":
    sys.exit(main())
