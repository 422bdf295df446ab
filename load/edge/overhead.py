"""What a request costs over HTTP beyond the model: one client, one row, p50.

One keep-alive connection, binary tensors, a token. Each round measures, one right after the other
and in an order that turns: the runtime over HTTP; onnxruntime called in a process with the same
input, session options (one thread) and niceness as the runtime's compute threads; the same without
niceness; and the bare server over HTTP. The mark compares p50 within a round:
(HTTP - 0.5 ms) / onnxruntime, for the heavy model against onnxruntime of the same niceness, because
that is where the runtime computes it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_runtime.engine.threads import COMPUTE_NICE
from load.bench.models import BenchModel
from load.bench.worker import Job, Measured
from load.edge import child
from load.edge.box import HOST, Box, Floor, Server
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.stage import Stage
from load.oip import binary_request

NAME: Final = "http"
TITLE: Final = "One request over HTTP"
SLACK_MS: Final = 0.5
HEAVY: Final = Mark(
    NAME, "(p50 - 0.5 ms) ÷ onnxruntime, heavy model, median of rounds", "x", "at_most", 1.1
)
OURS: Final = "edge runtime, HTTP"
BARE: Final = "bare server, HTTP"
ALONE: Final = "onnxruntime"
NICE: Final = f"onnxruntime, nice {COMPUTE_NICE}"


def measure(stage: Stage) -> dict[str, Any]:
    """Return latencies by model and by who answered, round by round."""
    models = (stage.models.light, stage.models.heavy)
    box, bare = Box(stage.scratch / "http"), Floor(stage.scratch / "http-floor.log", *models)
    box.install_onnx(*models)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with box, bare:
        headers = {"authorization": f"Bearer {box.token()}"}
        for model in models:
            contestants = _contestants(stage, model, box, bare, headers)
            rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
            order = list(contestants)
            for number in range(stage.plan.rounds):
                for name in order:
                    rounds[name].append(asdict(contestants[name]()))
                order = [*order[1:], order[0]]
                stage.say(f"http: {model.name}, round {number + 1}/{stage.plan.rounds}")
            found[model.name] = rounds
    return {"rounds": found, "heavy": stage.models.heavy.name}


def judged(found: Mapping[str, Any]) -> list[Verdict]:
    rounds = found["rounds"][found["heavy"]]
    ratios = [
        (ours - SLACK_MS) / theirs
        for ours, theirs in zip(_p50(rounds[OURS]), _p50(rounds[NICE]), strict=True)
    ]
    return [judge(HEAVY, Found.median(ratios))]


def page(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table for each model."""
    for model, rounds in found["rounds"].items():
        ours = _p50(rounds[OURS])
        yield f"{model}:"
        yield ""
        yield "| who | p50 ms | p99 ms | p50 of ours less its, ms (least to most) | ours ÷ its |"
        yield "|---|---|---|---|---|"
        for name, measured in rounds.items():
            p50 = _p50(measured)
            p99 = statistics.median(m["latency_ms"]["p99"] for m in measured)
            cells = [name, f"{statistics.median(p50):.3f}", f"{p99:.3f}", "", ""]
            if name != OURS:
                less = Found.median([a - b for a, b in zip(ours, p50, strict=True)])
                ratio = Found.median([a / b for a, b in zip(ours, p50, strict=True)])
                cells[3] = f"{less.value:.3f} ({less.least:.3f} to {less.most:.3f})"
                cells[4] = f"{ratio.value:.2f}"
            yield "| " + " | ".join(cells) + " |"
        yield ""


def _p50(rounds: list[dict[str, Any]]) -> list[float]:
    return [measured["latency_ms"]["p50"] for measured in rounds]


def _contestants(
    stage: Stage, model: BenchModel, box: Box, bare: Floor, headers: Mapping[str, str]
) -> Mapping[str, Callable[[], Measured]]:
    plan = stage.plan

    def over_http(server: Server, name: str, extra: Mapping[str, str]) -> Callable[[], Measured]:
        file = stage.scratch / f"{name}-{model.name}.request"
        file.write_bytes(binary_request(model.payload, server.authority, extra))
        job = Job("http", HOST, server.port, str(file), 1, plan.warm_s, plan.measure_s)
        return lambda: child.load(f"{name}, {model.name}", job)

    def alone(niceness: int) -> Callable[[], Measured]:
        job = Job(
            "onnx", HOST, 0, str(_input(stage.scratch, model)), 1, plan.warm_s, plan.measure_s,
            artifact=str(model.artifact),
        )  # fmt: skip
        return lambda: child.load(f"onnxruntime, {model.name}", job, niceness)

    return {
        OURS: over_http(box, "ours", headers),
        NICE: alone(COMPUTE_NICE),
        ALONE: alone(0),
        BARE: over_http(bare, "bare", {}),
    }


def _input(folder: Path, model: BenchModel) -> Path:
    path = folder / f"{model.name}.npy"
    np.save(path, model.payload.data)
    return path
