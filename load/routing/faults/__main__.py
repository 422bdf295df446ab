"""Routing on a real cluster whose edge box goes away, and then becomes slow.

    python -m load.routing.faults --partition 300

Starts a cluster of its own on this machine: the cloud tier, and an edge box with a fake Hailo
device, on which requests of its own site are cheapest. Requests with a deadline come at a constant
mean rate, whatever becomes of those before. Then the box is cut off for a while, so that it neither
answers nor refuses (as root by its network, else by stopping its processes); it comes back, and its
device is made three times slower. A quick model can be served by the cloud alone; of a paced one
there are more requests than the cloud alone can take.

Marks: nothing is sent to the box from 2 s after it went away until it is back; of the quick model's
requests 95 % are answered in time, in those 2 s, after them, and while the device is slow; of the
paced model's, 95 % of what the places that are left answer in time for the same arrivals by
themselves. Writes routing-faults.json and .md; exit status 1 when a mark does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from load.bench.machine import describe
from load.chaos.box import BoxError
from load.edge.soak import line
from load.routing.faults.page import markdown
from load.routing.faults.phases import Plan, run
from load.routing.faults.stage import built
from load.routing.faults.verdicts import figures, left_early, table, verdicts

CHECKOUT: Final = Path(__file__).resolve().parents[3]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, judge and write; 0 when every mark holds."""
    parser = argparse.ArgumentParser(
        prog="load.routing.faults",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--calm", type=float, default=20.0, help="seconds before")
    parser.add_argument("--partition", type=float, default=300.0, help="seconds without the box")
    parser.add_argument("--slow", type=float, default=90.0, help="seconds with a slow device")
    parser.add_argument("--slice", type=float, default=12.0, help="seconds of a turn in a round")
    parser.add_argument("--rate", type=float, default=40.0, help="quick requests a second")
    parser.add_argument("--paced-rate", type=float, default=75.0, help="paced requests a second")
    parser.add_argument("--deadline-ms", type=int, default=400)
    parser.add_argument("--cloud-ms", type=float, default=25.0, help="of a run there")
    parser.add_argument("--device-ms", type=float, default=15.0, help="of a frame on the device")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    options = parser.parse_args(arguments)
    plan = Plan(
        options.calm, options.partition, options.slow, options.slice, options.rate,
        options.paced_rate, options.deadline_ms, options.cloud_ms / 1e3, options.device_ms / 1e3,
        options.seed,
    )  # fmt: skip
    if not plan.has_rounds:
        parser.error("no round fits into --partition and --slow; make --slice shorter")
    machine, began = describe(CHECKOUT), time.monotonic()
    try:
        document = asyncio.run(_document(plan))
    except (BoxError, OSError) as error:
        print(f"the run ended early: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    document |= {"machine": machine, "took_s": time.monotonic() - began}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "routing-faults.json").write_text(json.dumps(document) + "\n")
    (options.out / "routing-faults.md").write_text(markdown(document))
    for verdict in document["marks"]:
        print(line(verdict))
    return 0 if all(verdict["is_met"] for verdict in document["marks"]) else 1


async def _document(plan: Plan) -> dict[str, Any]:
    task = asyncio.current_task()
    if task is not None:  # or the cluster would outlive this
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with built(plan.cloud_s, plan.device_s) as stage:
        seen = await run(plan, stage)
        how = stage.how
    found = figures(seen, plan)
    return {
        "plan": asdict(plan),
        "how": how,
        "rows": table(found),
        "pieces": [
            {**asdict(f["piece"]), "requests": f["requests"], "good": f["good"]} for f in found
        ],
        "returned_s": seen.returned_s,
        "left_early": left_early(seen),
        "marks": [asdict(verdict) for verdict in verdicts(found, seen)],
    }


if __name__ == "__main__":
    sys.exit(main())
