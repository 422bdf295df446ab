"""What the accelerator host adds to a frame: there and back, with a device that takes no time.

`AcceleratorModel.run` on an event loop, one frame after the other, through a real host process
whose binding is `null_device`: it calls back at once, and leaves the output alone. So the whole
round trip is what the host adds: filling shared memory, the message there, the host's copy into
the device's buffer, the driver's thread calling back, the copy of the output, the message back,
the wake-up of the loop. Nothing is subtracted. uint8 frames are copied as they are (channels
last, the layout of the device); for float32 frames the conversion is in the figure, and in the
host's own time, which it reports with each run. Outputs are 1,000 values. The floor is a bare
child that copies the same bytes through shared memory, called without an event loop. The mark is
on uint8 frames with the callback on a thread of the driver, as the vendor's does it.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.device import HailoAccelerator
from edge_runtime.accelerator.process import Ended, Heard, HostProcess
from edge_runtime.engine.runner import ModelOptions
from edge_runtime.engine.source import ModelSource, Variant
from edge_runtime.protocol.types import Signature, TensorSpec
from load.bench.stats import percentile
from load.edge import child
from load.edge.bare_host import BareHost
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.stage import Stage

NAME: Final = "hop"
TITLE: Final = "The hop to the accelerator host"
FRAME: Final = 150_528  # 224 x 224 x 3
ADDED: Final = Mark(
    NAME, "p50 added to a uint8 frame of 150 kB, median of rounds", "ms", "at_most", 0.1
)
OUTPUTS: Final = 1000
CHANNELS: Final = 3
WARM_UP: Final = 30
NULL_DEVICE: Final = Path(__file__).parent / "null_device"
FLOOR: Final = "bare child, no event loop"
# name: (datatype, is the model channels first, does the driver call back from a thread)
KINDS: Final[Mapping[str, tuple[str, bool, bool]]] = {
    "uint8": ("UINT8", False, True),
    "uint8, callback without a thread": ("UINT8", False, False),
    "float32, channels last": ("FP32", False, True),
    "float32, channels first": ("FP32", True, True),
}
MARKED: Final = "uint8"


def measure(stage: Stage) -> dict[str, Any]:
    """Return percentiles by kind and frame size, round by round; in ms."""
    rounds: list[Any] = []
    for number in range(stage.plan.rounds):
        job = {
            "calls": stage.plan.hop_calls,
            "bytes": stage.plan.hop_bytes,
            "folder": str(stage.scratch),
        }
        rounds.append(child.measure("hop", job))
        stage.say(f"hop: round {number + 1}/{stage.plan.rounds}")
    return {"rounds": rounds}


def judged(found: Mapping[str, Any]) -> list[Verdict]:
    values = [one["p50_ms"] for one in _series(found, MARKED, FRAME)]
    return [judge(ADDED, Found.median(values))] if values else []


def page(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield (
        "| frame | bytes on the device | p50 ms (least to most of rounds) | p99 ms "
        "| of which on the host, p50 ms |"
    )
    yield "|---|---|---|---|---|"
    for kind, size in dict.fromkeys((one["kind"], one["bytes"]) for one in found["rounds"][0]):
        series = _series(found, kind, size)
        p50 = Found.median([one["p50_ms"] for one in series])
        p99 = Found.median([one["p99_ms"] for one in series])
        host = Found.median([one["host_p50_ms"] for one in series])
        yield (
            f"| {kind} | {size:,} | {p50.value:.3f} ({p50.least:.3f} to {p50.most:.3f}) "
            f"| {p99.value:.3f} | {'' if kind == FLOOR else f'{host.value:.3f}'} |"
        )


def _series(found: Mapping[str, Any], kind: str, size: int) -> list[Mapping[str, Any]]:
    return [
        one
        for measured in found["rounds"]
        for one in measured
        if (one["kind"], one["bytes"]) == (kind, size)
    ]


def in_child(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measure every kind and size once."""
    found = []
    for size in job["bytes"]:
        found.append(_row(FLOOR, size, _bare(size, job["calls"]), []))
        found += [
            asyncio.run(_hosted(kind, size, job["calls"], Path(job["folder"]))) for kind in KINDS
        ]
    return found


def _bare(size: int, calls: int) -> list[float]:
    frame = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    taken: list[float] = []
    with BareHost(size, OUTPUTS) as host:
        for _ in range(WARM_UP + calls):
            began = time.perf_counter()
            host.run(frame)
            taken.append(time.perf_counter() - began)
    return taken[WARM_UP:]


async def _hosted(kind: str, size: int, calls: int, folder: Path) -> dict[str, Any]:
    datatype, is_channels_first, has_thread = KINDS[kind]
    frame = _shape(size)
    height, width, channels = frame
    rows = (channels, height, width) if is_channels_first else frame
    path = folder / "null.hef"
    document = {"inputs": {"x": frame}, "outputs": {"y": [OUTPUTS]}, "has_thread": has_thread}
    path.write_text(json.dumps(document), "utf-8")
    signature = Signature(
        (TensorSpec("x", datatype, (-1, *rows)),), (TensorSpec("y", datatype, (-1, OUTPUTS)),)
    )
    source = ModelSource("null", "1", (Variant("hef", path),), ModelOptions(max_batch_size=1))
    clerk = _Clerk()
    accelerator = HailoAccelerator([sys.executable], str(NULL_DEVICE), clerk.start)
    accelerator.start()
    try:
        model = await accelerator.open(source, signature)
        if model is None:
            raise RuntimeError("the accelerator did not take the model")
        async with asyncio.timeout(30.0):
            while model.why:  # noqa: ASYNC110 (it has no event for that)
                await asyncio.sleep(0.01)
        data = np.random.default_rng(1).integers(0, 256, (1, *rows)).astype(wire.NUMPY[datatype])
        taken: list[float] = []
        for number in range(WARM_UP + calls):
            if number == WARM_UP:
                clerk.host_ns.clear()
            began = time.perf_counter()
            await model.run([{"x": data}], ["y"])
            taken.append(time.perf_counter() - began)
        model.close()
    finally:
        await accelerator.close()
    return _row(kind, size, taken[WARM_UP:], clerk.host_ns)


class _Clerk:
    """Writes down what the host says of its own time."""

    def __init__(self) -> None:
        self.host_ns: list[int] = []

    def start(self, python: str, driver_path: str, heard: Heard, ended: Ended) -> HostProcess:
        def hear(kind: bytes, body: bytes) -> None:
            if kind == wire.DONE:
                self.host_ns.append(wire.DONE_BODY.unpack_from(body)[2])
            heard(kind, body)

        return HostProcess(python, driver_path, hear, ended)


def _row(kind: str, size: int, taken: Sequence[float], host_ns: Sequence[int]) -> dict[str, Any]:
    ordered = sorted(taken)
    return {
        "kind": kind,
        "bytes": size,
        "calls": len(ordered),
        "p50_ms": percentile(ordered, 0.5) * 1e3,
        "p99_ms": percentile(ordered, 0.99) * 1e3,
        "host_p50_ms": percentile(sorted(host_ns), 0.5) / 1e6 if host_ns else 0.0,
    }


def _shape(size: int) -> tuple[int, int, int]:
    """Return a frame of so many bytes: a square image, or else a strip."""
    side = math.isqrt(size // CHANNELS)
    return (side, side, CHANNELS) if side * side * CHANNELS == size else (1, size, 1)
