"""A runtime under full load for a long time: does it grow? `python -m load.edge.soak --minutes 20`

One `prime-spark edge run` with the fake device and four models over HTTP: the light one on the
device (with the processor below it), the heavy one on the processor, the light one again with
its answers kept, and a guest that is unloaded and loaded every few seconds. Beside the askers
there are clients that leave before their answer and clients that send malformed requests. Every
answer is compared with what onnxruntime says, every error is counted by kind, and memory, files
and threads of the process are read every second.

Growth is the median RSS over the last tenth of the time against that over the first tenth. Exit
status 1 when it is more than 5 %, when an answer was wrong, when an error came that had not to, or
when files or threads pile up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edge_runtime.errors import PrimeSparkError
from edge_runtime.packages import Incoming
from load.bench import machine
from load.edge import models, plot
from load.edge.box import Box, DidNotStart
from load.edge.crowd import Crowd, Guest
from load.edge.death import CODE_STEPS
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.models import Models, Publish
from load.edge.watch import Sample, tenths, watch
from load.fake_hailo.device import DRIVER_PATH, FakeDevice

NAME: Final = "edge-soak"
CHECKOUT: Final = Path(__file__).resolve().parents[2]
GROWTH: Final = Mark("soak", "RSS, last tenth against first, median", "%", "at_most", 5.0)
WRONG: Final = Mark("soak", "wrong answers", "", "at_most", 0.0)
SURPRISES: Final = Mark("soak", "errors that had not to come", "", "at_most", 0.0)
FILES: Final = Mark("soak", "open files, last tenth less first", "", "at_most", 5.0)
THREADS: Final = Mark("soak", "threads, last tenth less first", "", "at_most", 2.0)
RECALLED: Final = "recalled"
GUEST: Final = "guest"
TTL_MS: Final = 500.0
EXAMPLES: Final = 32
FEW: Final = 4  # inputs that come again before their answer is too old
DEVICE_S: Final = 0.001
# Askers by model.
LIGHT, HEAVY, OLD, VISITING = 3, 2, 2, 1
ASKERS: Final = LIGHT + HEAVY + OLD + VISITING


@dataclass(frozen=True, slots=True)
class Soak:
    """How long and how hard. rate_per_s: of all askers together, 0 for as fast as they can."""

    duration_s: float
    rate_per_s: float = 0.0
    every_s: float = 1.0
    seed: int = 1


def main(arguments: Sequence[str] | None = None, publish: Publish = models.publish) -> int:
    """Run it, write NAME.json and NAME.svg; 0 when every mark holds."""
    parser = argparse.ArgumentParser(
        prog="load.edge.soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", default="full", help="requests a second, or full")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    parser.add_argument("--name", default=NAME, help="of the files written")
    parser.add_argument("--home", type=Path, default=CHECKOUT / "build" / "edge-bench" / "home")
    options = parser.parse_args(arguments)
    try:
        rate = 0.0 if options.rate == "full" else float(options.rate)
        soak = Soak(options.minutes * 60, rate, seed=options.seed)
        document = run(soak, publish(options.home))
    except (DidNotStart, PrimeSparkError, OSError, ValueError) as error:
        print(f"the soak did not finish: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"this command failed: {error.cmd}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / options.name
    target.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    plot.draw_soak(target.with_suffix(".svg"), document)
    for verdict in document["marks"]:
        print(line(verdict))
    counts = document["counts"]
    print(f"{counts['answers']:,} right answers, by rung: {counts['rungs']}")
    if counts["first_unexpected"]:
        print(f"first that had not to come: {counts['first_unexpected']}")
    print(target.with_suffix(".json"))
    return 0 if all(verdict["is_met"] for verdict in document["marks"]) else 1


def line(verdict: dict[str, Any]) -> str:
    """Return a verdict for the terminal."""
    mark = verdict["mark"]
    state = "held    " if verdict["is_met"] else "NOT HELD"
    sign = "<=" if mark["how"] == "at_most" else ">="
    found = f"{verdict['found']['value']:.3g} {mark['unit']}".strip()
    return f"{state}  {mark['subject']}: {mark['title']}: {found} ({sign} {mark['limit']:g})"


def run(soak: Soak, served: Models) -> dict[str, Any]:
    """Soak a runtime; return everything that was seen as a JSON value.

    Raises DidNotStart, OSError when the runtime dies.
    """
    about = machine.describe(CHECKOUT)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        scratch = Path(folder)
        device = FakeDevice(scratch / "device")
        device.create(latency_s=DEVICE_S)
        hef = models.compiled(served.light, scratch / "light.hef")
        (stream,) = models.hef_outputs(hef)
        box = _box(scratch / "home", device, hef, served)
        with box:
            crowd, guest, samples = asyncio.run(_live(soak, box, served, CODE_STEPS * stream.scale))
    counts = crowd.counts
    return {
        "machine": about,
        "soak": asdict(soak),
        "how": __doc__,
        "marks": [asdict(verdict) for verdict in judged(samples, crowd)],
        "counts": {
            "answers": counts.answers,
            "rungs": dict(counts.rungs.most_common()),
            "wrong": dict(counts.wrong),
            "expected": dict(counts.expected.most_common()),
            "unexpected": dict(counts.unexpected.most_common()),
            "first_unexpected": counts.first_unexpected,
            "loads_of_the_guest": guest.turns,
        },
        "rss": {
            "first_tenth": tenths(samples, lambda s: s.rss)[0],
            "last_tenth": tenths(samples, lambda s: s.rss)[1],
            "host_first_tenth": tenths(samples, lambda s: s.host_rss)[0],
            "host_last_tenth": tenths(samples, lambda s: s.host_rss)[1],
            "most": max(s.rss for s in samples),
        },
        "samples": [asdict(sample) for sample in samples],
    }


def judged(samples: Sequence[Sample], crowd: Crowd) -> list[Verdict]:
    """Compare with the marks. Raises ValueError for no samples."""
    first, last = tenths(samples, lambda s: s.rss)
    growth = (last / first - 1.0) * 100
    files = tenths(samples, lambda s: s.descriptors)
    threads = tenths(samples, lambda s: s.threads)

    def exact(value: float) -> Found:
        return Found(value, value, value)

    return [
        judge(GROWTH, exact(growth)),
        judge(WRONG, exact(crowd.counts.wrong.total())),
        judge(SURPRISES, exact(crowd.counts.unexpected.total())),
        judge(FILES, exact(files[1] - files[0])),
        judge(THREADS, exact(threads[1] - threads[0])),
    ]


def _box(home: Path, device: FakeDevice, hef: Path, served: Models) -> Box:
    settings = {
        "edge.accelerator.kind": "hailo",
        "edge.accelerator.python": sys.executable,
        "edge.accelerator.driver_path": str(DRIVER_PATH),
    }
    box = Box(home, settings, {"FAKE_HAILO_DIR": str(device.folder)})
    light = Incoming("onnx", served.light.artifact)
    box.install(served.light.name, [light, Incoming("hef", hef, models.ARCHITECTURE)])
    box.install(served.heavy.name, [Incoming("onnx", served.heavy.artifact)])
    box.install(RECALLED, [light], {"cache_ttl_ms": TTL_MS})
    box.install(GUEST, [light])
    return box


async def _live(
    soak: Soak, box: Box, served: Models, tolerance: float
) -> tuple[Crowd, Guest, list[Sample]]:
    headers = {"authorization": f"Bearer {await asyncio.to_thread(box.token)}"}
    pause_s = ASKERS / soak.rate_per_s if soak.rate_per_s else 0.0
    crowd, guest = Crowd(box.port, headers, pause_s, soak.seed), Guest(GUEST)
    light = models.examples(served.light, EXAMPLES)
    heavy = models.examples(served.heavy, 2)
    questions = {
        served.light.name: [crowd.question(served.light.name, one, tolerance) for one in light],
        served.heavy.name: [crowd.question(served.heavy.name, one) for one in heavy],
        RECALLED: [crowd.question(RECALLED, one) for one in light[:FEW]],
        GUEST: [crowd.question(GUEST, one) for one in light],
    }
    askers = [
        *[(served.light.name, None)] * LIGHT,
        *[(served.heavy.name, None)] * HEAVY,
        *[(RECALLED, None)] * OLD,
        *[(GUEST, guest)] * VISITING,
    ]
    samples: list[Sample] = []
    busy = [
        *(crowd.ask(number, questions[name], who) for number, (name, who) in enumerate(askers)),
        crowd.switch(guest),
        crowd.desert(100, [*questions[served.light.name], *questions[served.heavy.name]]),
        crowd.misbehave(200, served.light),
        watch(box.pid, samples, lambda: crowd.counts.answers, soak.every_s),
    ]
    await until_first_ends([asyncio.ensure_future(one) for one in busy], soak.duration_s)
    return crowd, guest, samples


async def until_first_ends(tasks: Sequence[asyncio.Future[None]], timeout_s: float) -> None:
    """Let tasks that never end run for a time. Raises what one of them raised."""
    try:
        done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started
    sys.exit(main())
