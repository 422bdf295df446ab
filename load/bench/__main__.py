"""Run the serving benchmark and write its page: `python -m load.bench` (what `make bench` runs).

Writes NAME.json (raw), NAME.md (tables, pass marks) and NAME.svg below the output folder; NAME
is `serving`, or `serving-quick` with --quick. Exit status 1 when a pass mark was missed or a
measurement failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from cluster.home import Home
from edge_runtime.errors import PrimeSparkError
from load.bench import candidates as lineup
from load.bench import machine, models, plot, report, rounds
from load.bench.marks import judge
from load.bench.rounds import MeasurementFailed, Plan
from load.bench.servers import DidNotStart

FULL: Final = Plan(rounds=9, clients=(1, 8, 64), cold_starts=3, warm_s=0.5, measure_s=1.5)
QUICK: Final = Plan(rounds=2, clients=(1, 8), cold_starts=1, warm_s=0.3, measure_s=1.0)
CHECKOUT: Final = Path(__file__).resolve().parents[2]


def main() -> int:
    """Measure and write; 0 when every mark was met."""
    parser = argparse.ArgumentParser(prog="load.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about three minutes, for a look")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    parser.add_argument("--name", help="name of the files written")
    parser.add_argument(
        "--only", nargs="+", choices=list(lineup.CANDIDATES), help="servers to measure"
    )
    parser.add_argument("--rounds", type=int, help="rounds instead of the plan's")
    parser.add_argument(
        "--scratch", type=Path, default=CHECKOUT / "build" / "bench", help="home, logs, requests"
    )
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    if options.rounds:
        plan = Plan(options.rounds, plan.clients, plan.cold_starts, plan.warm_s, plan.measure_s)
    name = options.name or ("serving-quick" if options.quick else "serving")
    try:
        return _bench(plan, options.only or list(lineup.CANDIDATES), options, name)
    except (DidNotStart, MeasurementFailed, PrimeSparkError, ValueError) as error:
        print(f"the benchmark did not finish: {error}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        words = " ".join(str(word) for word in error.cmd)
        print(f"this command failed: {words}\nlogs: {options.scratch}", file=sys.stderr)
    return 1


def _bench(plan: Plan, names: list[str], options: argparse.Namespace, name: str) -> int:
    began = time.monotonic()
    about = machine.describe(CHECKOUT)
    scratch: Path = options.scratch
    scratch.mkdir(parents=True, exist_ok=True)
    home = Home.at(scratch / "home")
    shop = lineup.Workshop(
        environments=CHECKOUT / ".venvs",
        scratch=scratch,
        short=Path(tempfile.mkdtemp(prefix="psb-")),
        home=home,
        models=models.publish(home),
        ports=lineup.free_ports(),
    )
    try:
        chosen = [lineup.CANDIDATES[who](shop) for who in names]
        outcome = rounds.run(
            chosen, shop.models, plan, scratch, lambda text: print(text, flush=True)
        )
    finally:
        lineup.clean(shop)
    verdicts = judge(outcome.measurements)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": about,
        "plan": asdict(plan),
        "subjects": {s.name: s.title for c in chosen for s in c.subjects},
        "marks": [asdict(verdict) for verdict in verdicts],
        **outcome.document(),
    }
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    settings = lineup.__doc__ or ""
    page = report.markdown(name, about, plan, chosen, outcome, verdicts, settings)
    (out / f"{name}.md").write_text(page, "utf-8")
    plot.draw(out / f"{name}.svg", plan, [s for c in chosen for s in c.subjects], outcome)
    for verdict in verdicts:
        mark, found = verdict.mark, verdict.found
        met = "met   " if verdict.is_met else "MISSED"
        print(f"{met}  {mark.title} ({mark.model}): {found.median:.2f}, limit {mark.limit:g}")
    print(f"{out / name}.md, {time.monotonic() - began:.0f} s")
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
