"""Compare scaling rules in a simulator and write the page: `python -m load.scaling`.

Runs every rule on generated traffic of several shapes and on recorded traces, with several seeds.
Writes NAME.json (raw), NAME.md (marks, tables) and NAME.svg below the output folder. Exit status 1
when a mark does not hold, 2 when a trace cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge_runtime.errors import PrimeSparkError
from load.bench.machine import describe
from load.edge.soak import line
from load.options import add_traces, progress
from load.scaling.cells import GENERATED, LOAD, Cell, run_all
from load.scaling.judge import Table, verdicts
from load.scaling.plot import draw
from load.scaling.report import markdown
from load.scaling.rules import SUBJECTS
from load.simulator.trace import read_azure

CHECKOUT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, judge and write; 0 when every mark holds."""
    parser = argparse.ArgumentParser(
        prog="load.scaling", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_traces(parser)
    parser.add_argument(
        "--shape",
        action="append",
        choices=list(GENERATED),
        help="generated traffic to run (all of it when none is named)",
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="print the results as well")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    parser.add_argument("--name", default="scaling", help="of the files written")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.processes < 1:
        parser.error("at least one seed and one process")
    try:
        for file in options.trace:
            read_azure(file)
    except (PrimeSparkError, OSError) as error:
        print(f"a trace cannot be read: {error}", file=sys.stderr)
        return 2
    shapes = options.shape or list(GENERATED)
    cells = list(cells_of(shapes, [str(file) for file in options.trace], options.seeds))
    began = time.monotonic()

    done = progress(len(cells))
    # A file is known by its name from here on, not by where it lay.
    results = [
        replace(found, cell=replace(found.cell, trace=Path(found.cell.trace).stem))
        for found in run_all(cells, options.processes, done)
    ]
    table = Table(results)
    document: dict[str, Any] = {
        "machine": describe(CHECKOUT),
        "plan": {"seeds": options.seeds, "load": LOAD},
        "runs": len(results),
        "took_s": time.monotonic() - began,
        "marks": [asdict(verdict) for verdict in verdicts(table)],
        "results": [result.document() for result in results],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(document) + "\n")
    (options.out / f"{options.name}.md").write_text(markdown(options.name, document, table))
    draw(options.out / f"{options.name}.svg", table)
    if options.json:
        print(json.dumps(document, indent=1))
    for verdict in document["marks"]:
        print(line(verdict), file=sys.stderr)
    print(f"{options.out / options.name}.md, {document['took_s']:.0f} s", file=sys.stderr)
    return 0 if all(verdict["is_met"] for verdict in document["marks"]) else 1


def cells_of(shapes: Sequence[str], traces: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Yield everything to run."""
    for seed in range(1, seeds + 1):
        for subject in SUBJECTS:
            for trace in (*shapes, *traces):
                yield Cell(trace, "plain", subject, seed)
                if trace in traces:
                    yield Cell(trace, "refusing", subject, seed)
                if trace in ("seasonal", "bells"):
                    yield Cell(trace, "slow_start", subject, seed)
                if trace == "seasonal":
                    yield Cell(trace, "slower", subject, seed)


if __name__ == "__main__":
    sys.exit(main())
