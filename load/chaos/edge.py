"""The edge runtime's fault run: is the site answered, rightly, whatever breaks?

    python -m load.chaos.edge --minutes 30

A box with a fake Hailo device serves a trained model to clients at a steady rate while its
accelerator fails every ten seconds and, less often, its power, clock, disk and files; with a head,
also its raylet, the head and the network. Every answer is compared with what that input gives on
the rung that the answer names. Ends with 0 when every mark holds (docs/operations/edge-faults.md).
Needs root: it mounts a small disk for the box and, with a head, makes a network namespace.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from load.chaos.box import BoxError
from load.chaos.marks import Mark
from load.chaos.report import document, write_report
from load.chaos.run import Options, run
from load.chaos.schedule import Pace, kinds

CHECKOUT: Final = Path(__file__).resolve().parents[2]
REPORTS: Final = CHECKOUT / "docs" / "benchmarks"
PIPED_WIDTH: Final = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print what held; 0 when everything did."""
    options = _parse(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    if os.geteuid() != 0:
        print("this needs root: it mounts a disk and makes a network namespace", file=sys.stderr)
        return 2
    asked = Options(
        minutes=options.minutes,
        seed=options.seed,
        only=tuple(options.only or ()),
        has_cluster=not options.no_cluster,
        pace=Pace(options.every, options.box_every, options.cluster_every),
        is_trained=not options.untrained,
        is_relentless=options.relentless,
        keep=options.keep,
    )
    try:
        done = asyncio.run(run(asked, lambda text: print(text, flush=True)))
    except BoxError as error:
        print(f"the run could not be made: {error}", file=sys.stderr)
        return 2
    console.print(_table(done.marks))
    found = document(asked, done, CHECKOUT)
    if options.json:
        write_report(found, done, options.json)
    if options.report:
        write_report(found, done, REPORTS / "edge-faults.json", REPORTS / "edge-faults.svg")
    return 0 if all(mark.holds for mark in done.marks) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load.chaos.edge", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write events, requests and figures to this file")
    parser.add_argument("--only", nargs="+", metavar="KIND", choices=kinds(), help="these faults")
    parser.add_argument("--no-cluster", action="store_true", help="a box alone, without a head")
    parser.add_argument("--report", action="store_true", help="figures and plot to docs/benchmarks")
    parser.add_argument("--every", type=float, default=10.0, help="seconds: accelerator faults")
    parser.add_argument("--box-every", type=float, default=75.0, help="seconds: box faults")
    parser.add_argument(
        "--cluster-every", type=float, default=150.0, help="seconds: cluster faults"
    )
    parser.add_argument("--untrained", action="store_true", help="random weights: starts sooner")
    parser.add_argument(
        "--relentless", action="store_true", help="accelerator faults wait for nothing"
    )
    parser.add_argument("--keep", action="store_true", help="leave logs in the run's folder")
    return parser.parse_args(arguments)


def _table(marks: Sequence[Mark]) -> Table:
    table = Table("what must hold", "found", "holds", show_edge=False)
    for mark in marks:
        table.add_row(mark.what, mark.found, "yes" if mark.holds else "[red]no")
    return table


if __name__ == "__main__":
    sys.exit(main())
