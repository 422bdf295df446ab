"""The demo's accelerator: a fake Hailo device that computes true results, taken away under traffic.

There is no Hailo hardware on the machine that runs the demo. The edge runtime talks to it as it
would to the vendor's driver (`load/fake_hailo`): another process, uint8 in and out.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from cluster.config import Settings
from cluster.home import Home
from cluster.registry import ArtifactFile, EmbeddedRegistry, ModelCard, ModelVersion
from edge_runtime.errors import Conflict
from load.demo.gateway import INPUT, Access, RestCaller, command
from load.demo.traffic import Traffic
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from load.fake_hailo.hef import compile_hef
from serve_apps.model_sync import runnable_artifact

MODEL: Final = "digits-hailo"
TOP: Final = "hailo"
RATE_PER_S: Final = 20.0
BEFORE_S: Final = 3.0
AWAY_S: Final = 3.0
RETURN_TIMEOUT_S: Final = 30.0
CALIBRATION_ROWS: Final = 200


def device(home: Home) -> FakeDevice:
    """Return the demo's device, whole and plugged in."""
    found = FakeDevice(home.root / "fake-hailo")
    if not (found.folder / "device.json").exists():
        found.create(latency_s=0.0005)
    found.heal()
    return found


def flags(home: Home) -> list[str]:
    """Return the settings of a cluster whose edge box has that device."""
    values = {
        "kind": "hailo",
        "python": sys.executable,
        "driver_path": str(DRIVER_PATH),
        "environment": f"[FAKE_HAILO_DIR={device(home).folder}]",
    }
    return [
        word
        for name, value in values.items()
        for word in ("--set", f"edge.accelerator.{name}={value}")
    ]


def show(console: Console, settings: Settings, home: Home, access: Access, data: Any) -> int:
    """Serve the digits on the device, take it away under traffic; return how much went wrong."""
    version = register(home, data)
    command(["model", "serve", f"{MODEL}@{version}", "--placement", "edge"], show=True)
    edge = Access(f"127.0.0.1:{settings.edge.ports.rest}", access.grpc, access.token)
    wrong = _accuracy(console, edge, data)
    traffic = Traffic(edge, MODEL, data.test.images, settings.edge.site, RATE_PER_S)
    traffic.start()
    returned_s: float | None = None
    try:
        time.sleep(BEFORE_S)
        gone_s = traffic.elapsed_s
        device(home).vanish()
        console.print(f"{gone_s:5.1f} s  the accelerator vanished from its bus")
        time.sleep(AWAY_S)
        back_s = traffic.elapsed_s
        device(home).put_back()
        console.print(f"{back_s:5.1f} s  it was plugged in again")
        returned_s = _wait_for_return(traffic, back_s)
        if returned_s is None:
            console.print(f"[red]it did not compute again within {RETURN_TIMEOUT_S:.0f} s")
        else:
            console.print(f"{returned_s:5.1f} s  it computes again")
            time.sleep(1.0)
    finally:
        traffic.stop()
    _table(console, traffic, gone_s, returned_s)
    return wrong + len(traffic.failures) + (returned_s is None)


def register(home: Home, data: Any) -> str:
    """Register the digits with a HEF beside their ONNX file; return the version."""
    registry = EmbeddedRegistry(home.registry)
    plain: ModelVersion = registry.resolve("digits", None)
    onnx = registry.artifact_path(runnable_artifact(plain))
    with tempfile.TemporaryDirectory(dir=home.root) as folder:
        hef = Path(folder) / "digits.hef"
        rows = {INPUT: data.train.images[:CALIBRATION_ROWS]}
        hef.write_bytes(compile_hef(onnx, rows, architecture="hailo8", network="digits"))
        try:
            registry.register(
                MODEL,
                plain.version,
                signature=plain.signature,
                artifacts=[ArtifactFile("onnx", onnx), ArtifactFile("hef", hef, "hailo8")],
                card=ModelCard("The digits with a HEF for the demo's fake device"),
                actor="demo",
            )
        except Conflict:  # an earlier demo has registered it
            return plain.version
    return plain.version


def _accuracy(console: Console, edge: Access, data: Any) -> int:
    """Ask the edge box for every test image; return 1 when that is not as it should be."""
    caller = RestCaller(edge)
    images, labels = data.test.images, data.test.labels
    answers = [caller.predict(MODEL, images[row : row + 1]) for row in range(len(images))]
    caller.close()
    right = sum(int(a.logits.argmax()) == int(y) for a, y in zip(answers, labels, strict=True))
    by_rung = {rung: sum(a.rung == rung for a in answers) for rung in {a.rung for a in answers}}
    where = ", ".join(f"{rung} {count}" for rung, count in sorted(by_rung.items()))
    share = right / len(labels)
    console.print(f"{MODEL}, uint8 in and out: accuracy {share:.4f}; computed by {where}")
    return int(share < 0.97 or by_rung.get(TOP, 0) < 0.9 * len(answers))


def _wait_for_return(traffic: Traffic, from_s: float) -> float | None:
    until = time.monotonic() + RETURN_TIMEOUT_S
    while time.monotonic() < until:
        for sample in list(traffic.samples):
            if sample.at_s >= from_s and sample.rung == TOP:
                return sample.at_s
        time.sleep(0.1)
    return None


def _table(console: Console, traffic: Traffic, gone_s: float, returned_s: float | None) -> None:
    table = Table("span", "requests", "failed", "computed by", "slowest ms")
    end_s = returned_s if returned_s is not None else 1e9
    spans = [
        ("accelerator there", 0.0, gone_s),
        ("accelerator gone", gone_s, end_s),
        ("accelerator back", end_s, 1e9),
    ]
    for name, since_s, until_s in spans:
        samples = [s for s in traffic.samples if since_s <= s.at_s < until_s]
        served = traffic.computed_by(since_s, until_s)
        table.add_row(
            name,
            str(len(samples)),
            str(sum(s.error is not None for s in samples)),
            ", ".join(f"{rung or 'nobody'} {count}" for rung, count in served.most_common()),
            f"{max((s.taken_ms for s in samples), default=0.0):.0f}",
        )
    console.print(table)
    for sample in traffic.failures[:5]:
        console.print(f"[red]{sample.at_s:.2f} s: {sample.error}")
