"""What the death of the accelerator's host, or its hanging, costs those who wait for an answer.

An engine in a process of its own with the light model on the fake device (2 ms a frame), and
callers who ask again as soon as they are answered. In each life of an accelerator its host is
killed with SIGKILL by a thread, several times, and its device hangs once; the next blow comes
when it has served again for more than 2 s (sooner would count as flapping). Times count from
right before the signal:

- noticed: the host's end is told to the runtime (end of the socket);
- in flight: requests that had been sent and not answered; each counts until its answer, by
  whatever rung; `first` is the first of them that the processor answered;
- back: a new host has put the model on the device again (probation not counted);
- serving again: with probation.

A hang is noticed when the host is killed for it. That has max(10 x p99, 250 ms), with p99 over the
runs that the host reported before (200 at most). The heavy model is killed a few times with two
callers, for information: an inference on the processor is in each answer. The floor is a bare child
with the same model, killed while it waits: until its socket ends, and from exec until its session
is open.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.device import HailoAccelerator
from edge_runtime.accelerator.process import Ended, Heard, HostProcess
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource, Variant
from edge_runtime.protocol.types import InferRequest, Tensor
from load.bench.models import BenchModel
from load.bench.stats import percentile
from load.edge import child, models
from load.edge.bare_child import live_and_die
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.stage import Stage
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from policies.degradation import FLAP_S

NAME: Final = "death"
TITLE: Final = "Death of the accelerator host"
HANG_FACTOR: Final = 10.0
HANG_S: Final = 0.25
NOTICED: Final = Mark(NAME, "kill to noticed, worst of kills", "ms", "at_most", 20.0)
ANSWERED: Final = Mark(
    NAME, "kill to answer, p99 of all requests in flight", "ms", "at_most", 300.0
)
BACK: Final = Mark(NAME, "kill to host back, worst of kills", "s", "at_most", 1.0)
HUNG: Final = Mark(
    NAME,
    "hang to noticed less max(10 x p99, 250 ms), worst of hangs",
    "ms",
    "at_most",
    0.0,
)
LIGHT_CALLERS: Final = 8
HEAVY_CALLERS: Final = 2
LATENCY_S: Final = 0.002
PATIENCE_S: Final = 30.0
RUNS: Final = 200
CODE_STEPS: Final = 4  # of the output's scale, that uint8 on both sides may be off


@dataclass(frozen=True, slots=True)
class Blow:
    """One kill or hang; seconds since then. limit_s: for a hang, else 0.

    in_flight_s: until each answer; by_device: how many of those had been computed before; wrong:
    answers that were not the model's.
    """

    kind: str
    noticed_s: float
    first_s: float | None
    in_flight_s: list[float]
    by_device: int
    back_s: float
    serving_s: float
    limit_s: float
    wrong: int


def measure(stage: Stage) -> dict[str, Any]:
    """Return every blow, and the floor's times."""
    plan = stage.plan
    blows: list[dict[str, Any]] = []
    floor: list[Mapping[str, float]] = []
    for number in range(plan.lives):
        ready_s, noticed_s = live_and_die(stage.models.light.artifact)
        floor.append({"ready_s": ready_s, "noticed_s": noticed_s})
        blows += _life(stage, stage.models.light, number, plan.kills, 1, LIGHT_CALLERS)
        stage.say(f"death: life {number + 1}/{plan.lives}")
    heavy: list[dict[str, Any]] = []
    if plan.heavy_kills:
        heavy = _life(stage, stage.models.heavy, 0, plan.heavy_kills, 0, HEAVY_CALLERS)
        stage.say("death: the heavy model")
    return {"blows": blows, "heavy": heavy, "floor": floor}


def judged(found: Mapping[str, Any]) -> list[Verdict]:
    kills, hangs = _of(found["blows"], "kill"), _of(found["blows"], "hang")
    waits = [wait * 1e3 for blow in kills for wait in blow["in_flight_s"]]
    late = [(blow["noticed_s"] - blow["limit_s"]) * 1e3 for blow in hangs]
    verdicts = [judge(NOTICED, Found.worst([blow["noticed_s"] * 1e3 for blow in kills]))]
    if waits:
        p99 = percentile(sorted(waits), 0.99)
        verdicts.append(judge(ANSWERED, Found(p99, min(waits), max(waits))))
    verdicts.append(judge(BACK, Found.worst([blow["back_s"] for blow in kills])))
    if late:
        verdicts.append(judge(HUNG, Found.worst(late)))
    return verdicts


def page(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield (
        "| blow | times | noticed ms: median, worst | first answer by the processor ms: median, "
        "worst | in flight ms: p50, p99, worst (requests) | host back s: median, worst "
        "| serving again s: median | wrong answers |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    yield _row("kill, light model", _of(found["blows"], "kill"))
    yield _row("hang, light model", _of(found["blows"], "hang"))
    if found["heavy"]:
        yield _row("kill, heavy model", _of(found["heavy"], "kill"))
    noticed = [one["noticed_s"] * 1e3 for one in found["floor"]]
    ready = [one["ready_s"] for one in found["floor"]]
    yield (
        f"| kill, bare child (floor) | {len(noticed)} | {_two(noticed, 1)} | | "
        f"| {_two(ready, 2)} | | |"
    )
    limits = [blow["limit_s"] for blow in _of(found["blows"], "hang")]
    if limits:
        yield ""
        least, most = min(limits) * 1e3, max(limits) * 1e3
        yield f"Limits of runs when they hung: {least:.0f} to {most:.0f} ms."


def _row(title: str, blows: Sequence[Mapping[str, Any]]) -> str:
    waits = sorted(wait * 1e3 for blow in blows for wait in blow["in_flight_s"])
    first = [blow["first_s"] * 1e3 for blow in blows if blow["first_s"] is not None]
    in_flight = ""
    if waits:
        shares = ", ".join(f"{percentile(waits, share):.1f}" for share in (0.5, 0.99, 1.0))
        in_flight = f"{shares} ({len(waits)})"
    cells = [
        title,
        str(len(blows)),
        _two([blow["noticed_s"] * 1e3 for blow in blows], 1),
        _two(first, 1) if first else "",
        in_flight,
        _two([blow["back_s"] for blow in blows], 2),
        f"{statistics.median(blow['serving_s'] for blow in blows):.2f}" if blows else "",
        str(sum(blow["wrong"] for blow in blows)),
    ]
    return "| " + " | ".join(cells) + " |"


def _two(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):.{digits}f}, {max(values):.{digits}f}"


def _of(blows: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [blow for blow in blows if blow["kind"] == kind]


def _life(
    stage: Stage, model: BenchModel, number: int, kills: int, hangs: int, callers: int
) -> list[dict[str, Any]]:
    hef = stage.scratch / f"{model.name}.hef"
    if not hef.exists():
        models.compiled(model, hef)
    device = FakeDevice(stage.scratch / f"device-{model.name}-{number}")
    device.create(latency_s=LATENCY_S)
    job = {
        "name": model.name,
        "onnx": str(model.artifact),
        "hef": str(hef),
        "device": str(device.folder),
        "kills": kills,
        "hangs": hangs,
        "callers": callers,
        "seed": number,
    }
    found: list[dict[str, Any]] = child.measure(
        NAME, job, environment={"FAKE_HAILO_DIR": str(device.folder)}
    )
    return found


def in_child(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Live through one accelerator's life."""
    return [asdict(blow) for blow in asyncio.run(_live(job))]


@dataclass(slots=True)
class _Watch:
    """Writes down when hosts end, when they have taken a model, and how long runs took."""

    ended_at: list[float] = field(default_factory=list)
    loaded_at: list[float] = field(default_factory=list)
    ran_s: deque[float] = field(default_factory=lambda: deque(maxlen=RUNS))

    def start(self, python: str, driver_path: str, heard: Heard, ended: Ended) -> HostProcess:
        def hear(kind: bytes, body: bytes) -> None:
            if kind == wire.LOADED:
                self.loaded_at.append(time.perf_counter())
            elif kind == wire.DONE:
                self.ran_s.append(wire.DONE_BODY.unpack_from(body)[2] / 1e9)
            heard(kind, body)

        def end() -> None:
            self.ended_at.append(time.perf_counter())
            ended()

        return HostProcess(python, driver_path, hear, end)


@dataclass(slots=True)
class _Callers:
    """Ask again and again. under_way: when each request was sent; calls: (sent, answered, rung)."""

    engine: Engine
    request: InferRequest
    expected: Any
    tolerance: float
    calls: list[tuple[float, float, str]] = field(default_factory=list)
    wrong: int = 0
    is_over: bool = False

    async def ask(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.is_over:
            began = time.perf_counter()
            answered = await self.engine.answer(
                self.request, "1", deadline=loop.time() + PATIENCE_S
            )
            self.calls.append((began, time.perf_counter(), answered.rung))
            exact = self.tolerance if answered.rung == HailoAccelerator.name else 1e-3
            self.wrong += not np.allclose(answered.outputs[0].data, self.expected, atol=exact)
            await asyncio.sleep(0)  # a quick model is computed without giving way to anybody


async def _live(job: Mapping[str, Any]) -> list[Blow]:
    rng = random.Random(job["seed"])  # noqa: S311 (when to strike)
    device, watch = FakeDevice(Path(job["device"])), _Watch()
    accelerator = HailoAccelerator([sys.executable], str(DRIVER_PATH), watch.start)
    engine = Engine(EngineOptions(), accelerator=accelerator)
    accelerator.start()
    blows: list[Blow] = []
    try:
        variants = (
            Variant("onnx", Path(job["onnx"])),
            Variant("hef", Path(job["hef"]), models.ARCHITECTURE),
        )
        await engine.load(ModelSource(job["name"], "1", variants, ModelOptions()))
        await _until(lambda: not accelerator.why)
        async with _asking(engine, job) as callers:
            for turn in range(job["kills"] + job["hangs"]):
                await asyncio.sleep((FLAP_S if turn else 0.2) + 0.1 + rng.random() * 0.1)
                strike = _kill if turn < job["kills"] else _hang
                blows.append(await strike(accelerator, device, watch, callers))
    finally:
        await engine.close()
        await accelerator.close()
    return blows


@asynccontextmanager
async def _asking(engine: Engine, job: Mapping[str, Any]) -> AsyncIterator[_Callers]:
    model = models.describe(job["name"], Path(job["onnx"]))
    tensor = Tensor(model.payload.input, "FP32", model.payload.data)
    (stream,) = models.hef_outputs(Path(job["hef"]))
    callers = _Callers(
        engine, InferRequest(model.name, "1", (tensor,)), model.expected, CODE_STEPS * stream.scale
    )
    async with asyncio.TaskGroup() as group:
        for _ in range(job["callers"]):
            group.create_task(callers.ask())
        try:
            yield callers
        finally:
            callers.is_over = True


async def _kill(
    accelerator: HailoAccelerator,
    device: FakeDevice,
    watch: _Watch,
    callers: _Callers,
) -> Blow:
    pid = accelerator.host_pid
    if pid is None:
        raise RuntimeError("no host runs")

    def strike() -> float:
        at = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        return at

    callers.calls.clear()
    at = await asyncio.to_thread(strike)
    return await _aftermath("kill", at, 0.0, accelerator, watch, callers)


async def _hang(
    accelerator: HailoAccelerator,
    device: FakeDevice,
    watch: _Watch,
    callers: _Callers,
) -> Blow:
    limit_s = max(HANG_FACTOR * percentile(sorted(watch.ran_s), 0.99), HANG_S)

    def strike() -> float:
        device.hang(until="reopened")
        return time.perf_counter()

    callers.calls.clear()
    at = await asyncio.to_thread(strike)
    return await _aftermath("hang", at, limit_s, accelerator, watch, callers)


async def _aftermath(
    kind: str,
    at: float,
    limit_s: float,
    accelerator: HailoAccelerator,
    watch: _Watch,
    callers: _Callers,
) -> Blow:
    """Wait until it serves again, and read off what happened meanwhile."""
    await _until(lambda: _since(watch.ended_at, at) is not None)
    ended_at = _since(watch.ended_at, at) or at
    await _until(lambda: _since(watch.loaded_at, ended_at) is not None)
    await _until(lambda: not accelerator.why)
    serving_s = time.perf_counter() - at
    in_flight = [call for call in callers.calls if call[0] <= at < call[1]]
    by_processor = [call[1] for call in in_flight if call[2].startswith("cpu")]
    wrong, callers.wrong = callers.wrong, 0
    return Blow(
        kind=kind,
        noticed_s=ended_at - at,
        first_s=min(by_processor) - at if by_processor else None,
        in_flight_s=[call[1] - at for call in in_flight],
        by_device=len(in_flight) - len(by_processor),
        back_s=(_since(watch.loaded_at, ended_at) or ended_at) - at,
        serving_s=serving_s,
        limit_s=limit_s,
        wrong=wrong,
    )


def _since(times: Sequence[float], at: float) -> float | None:
    return next((found for found in times if found > at), None)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (there is no event for these)
            await asyncio.sleep(0.005)
