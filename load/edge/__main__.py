"""Run the edge runtime's benchmark and write its page: `python -m load.edge`.

Writes NAME.json (raw), NAME.md (marks, tables) and NAME.svg below the output folder; NAME is
`edge`, with `-quick` and the subjects' names behind it unless everything was measured in full.
Exit status 1 when a mark does not hold or a measurement failed.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_runtime.errors import PrimeSparkError
from load.edge import bench, models
from load.edge.box import DidNotStart
from load.edge.child import MeasurementFailed
from load.edge.models import Publish
from load.edge.plan import FULL, QUICK, Plan
from load.edge.soak import line
from load.edge.subjects import SUBJECTS


def main(
    arguments: Sequence[str] | None = None, publish: Publish = models.publish, quick: Plan = QUICK
) -> int:
    """Measure and write; 0 when every mark holds."""
    parser = argparse.ArgumentParser(
        prog="load.edge", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes, for a look")
    parser.add_argument("--rounds", type=int, help="rounds instead of the plan's")
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print the results as well")
    parser.add_argument("--out", type=Path, default=bench.CHECKOUT / "docs" / "benchmarks")
    parser.add_argument("--name", help="of the files written")
    parser.add_argument(
        "--home",
        type=Path,
        default=bench.CHECKOUT / "build" / "edge-bench" / "home",
        help="with the models; they are made there the first time",
    )
    options = parser.parse_args(arguments)
    plan = quick if options.quick else FULL
    if options.rounds is not None:
        if options.rounds < 1:
            parser.error("at least one round")
        plan = replace(plan, rounds=options.rounds)
    names = [name for name in SUBJECTS if name in (options.only or SUBJECTS)]
    extra = [*(["quick"] if options.quick else []), *(names if options.only else [])]
    try:
        document = bench.run(
            publish(options.home),
            plan,
            names,
            lambda text: print(text, file=sys.stderr, flush=True),
        )
    except (DidNotStart, MeasurementFailed, PrimeSparkError, OSError, ValueError) as error:
        print(f"the benchmark did not finish: {error}", file=sys.stderr)
        return 1
    except subprocess.SubprocessError as error:
        print(f"the benchmark did not finish: {error}", file=sys.stderr)
        return 1
    page = bench.write(document, options.out, options.name or "-".join(["edge", *extra]))
    if options.json:
        print(json.dumps(document, indent=1))
    for verdict in document["marks"]:
        print(line(verdict), file=sys.stderr)
    print(f"{page}, {document['took_s']:.0f} s", file=sys.stderr)
    return 0 if all(verdict["is_met"] for verdict in document["marks"]) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started
    sys.exit(main())
