"""Rows a second at saturation, against onnxruntime alone at its best batch size.

An engine in a process of its own with callers who ask for one row again as soon as they are
answered, each giving way to the others once between (as requests that come over sockets do), and
batches of up to 16; requests may wait for 30 s, so that none is refused. onnxruntime alone: as
many threads as the engine's model has workers, each running one session on batches that were
made before, at the niceness that the engine computes at; the size is the best of those tried at
the beginning, and is measured again in each round. Over HTTP: the runtime as a process, as many
keep-alive connections, the client on the same processors. Whole batches: requests to the engine
of as many rows as that best size.

Marks: the heavy model, one row a request, in the engine and over HTTP; the light one in whole
batches, because what a request costs in Python is as much as a row of it. For that, one row a
request is there for information, and beside it the floor: the same callers around onnxruntime's
call and nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from edge_runtime.backends.ort import onnxruntime as ort
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource, model_options
from edge_runtime.engine.threads import COMPUTE_NICE
from edge_runtime.packages import Incoming
from edge_runtime.protocol.types import Array, InferRequest, Tensor
from load.bench.models import BenchModel
from load.bench.worker import Job
from load.edge import child, models
from load.edge.box import HOST, Box
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.stage import Stage
from load.oip import binary_request

NAME: Final = "throughput"
TITLE: Final = "Throughput at saturation"
LIMIT: Final = 0.9
MAX_BATCH: Final = 16
OPTIONS: Final = {"max_batch_size": MAX_BATCH, "max_queue_wait_ms": 30_000.0}
LIGHT: Final = Mark(
    NAME, "light model in whole batches ÷ onnxruntime, median of rounds", "x", "at_least", LIMIT
)
HEAVY: Final = Mark(
    NAME, "heavy model in the engine ÷ onnxruntime, median of rounds", "x", "at_least", LIMIT
)
HEAVY_HTTP: Final = Mark(
    NAME, "heavy model over HTTP ÷ onnxruntime, median of rounds", "x", "at_least", LIMIT
)
ENGINE: Final = "engine"
WHOLE: Final = "engine, whole batches"
BARE: Final = "callers around onnxruntime, one row a call"
HTTP: Final = "HTTP"
ALONE: Final = "onnxruntime alone"
ALL: Final = "onnxruntime alone, a thread for each processor"
PATIENCE_S: Final = 60.0


def measure(stage: Stage) -> dict[str, Any]:
    """Return rows a second by model and by who computed, round by round."""
    served = (stage.models.light, stage.models.heavy)
    box = Box(stage.scratch / "throughput")
    for model in served:
        box.install(model.name, [Incoming("onnx", model.artifact)], OPTIONS)
    found = {}
    with box:
        headers = {"authorization": f"Bearer {box.token()}"}
        for model in served:
            file = stage.scratch / f"{model.name}.request"
            file.write_bytes(binary_request(model.payload, box.authority, headers))
            found[model.name] = _of_model(stage, model, box, file)
    return {"models": found, "light": served[0].name, "heavy": served[1].name}


def judged(found: Mapping[str, Any]) -> list[Verdict]:
    light, heavy = (found["models"][found[name]]["rounds"] for name in ("light", "heavy"))
    return [
        judge(LIGHT, _ratio(light[WHOLE], light[ALONE])),
        judge(HEAVY, _ratio(heavy[ENGINE], heavy[ALONE])),
        judge(HEAVY_HTTP, _ratio(heavy[HTTP], heavy[ALONE])),
    ]


def page(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table for each model."""
    for name, measured in found["models"].items():
        tried = ", ".join(f"{size}: {rate:,.0f}" for size, rate in measured["tried"].items())
        yield (
            f"{name}, {measured['clients']} clients, {measured['workers']} workers at niceness "
            f"{measured['niceness']}; onnxruntime alone by batch size, rows a second: {tried}."
        )
        yield ""
        yield "| who | rows/s (least to most) | ÷ onnxruntime alone | rows a batch |"
        yield "|---|---|---|---|"
        for who, rates in measured["rounds"].items():
            rate = Found.median(rates)
            cells = [who, f"{rate.value:,.0f} ({rate.least:,.0f} to {rate.most:,.0f})", "", ""]
            if who != ALONE:
                ratio = _ratio(rates, measured["rounds"][ALONE])
                cells[2] = f"{ratio.value:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"
            if batches := measured["rows_a_batch"].get(who):
                cells[3] = f"{statistics.median(batches):.1f}"
            elif who in (ALONE, ALL):
                cells[3] = str(measured["batch"])
            elif who == BARE:
                cells[3] = "1"
            yield "| " + " | ".join(cells) + " |"
        yield ""


def _ratio(ours: list[float], theirs: list[float]) -> Found:
    return Found.median([a / b for a, b in zip(ours, theirs, strict=True)])


def _of_model(stage: Stage, model: BenchModel, box: Box, file: Path) -> dict[str, Any]:
    plan = stage.plan
    clients = plan.heavy_clients if model is stage.models.heavy else plan.clients
    base = {"onnx": str(model.artifact), "warm_s": plan.warm_s, "measure_s": plan.measure_s}
    asked = {**base, "what": "engine", "name": model.name, "clients": clients, "rows": 1}
    first = child.measure(NAME, asked)  # it says how it computes
    workers = int(first["workers"])
    niceness = 0 if first["is_on_the_loop"] else COMPUTE_NICE

    def alone(batch: int, threads: int) -> float:
        job = {**base, "what": "alone", "batch": batch, "threads": threads}
        return float(child.measure(NAME, job, niceness=niceness)["per_s"])

    tried = {size: alone(size, workers) for size in plan.batches}
    best = max(tried, key=lambda size: tried[size])
    stage.say(f"throughput: {model.name}, best batch size of onnxruntime alone {best}")
    job = Job("http", HOST, box.port, str(file), clients, plan.warm_s, plan.measure_s)
    rows_a_batch: dict[str, list[float]] = {ENGINE: [], WHOLE: []}

    def whole() -> float:
        return of_engine(
            WHOLE, {**asked, "rows": best, "clients": max(1, clients // best) + workers}
        )

    def bare() -> float:
        return float(child.measure(NAME, {**asked, "what": "bare"})["per_s"])

    def of_engine(who: str, job: Mapping[str, Any]) -> float:
        measured = child.measure(NAME, job)
        rows_a_batch[who].append(measured["rows_a_batch"])
        return float(measured["per_s"])

    contestants: dict[str, Callable[[], float]] = {
        ENGINE: lambda: of_engine(ENGINE, asked),
        ALONE: lambda: alone(best, workers),
        HTTP: lambda: child.load(f"HTTP, {model.name}", job).per_s,
        WHOLE: whole,
    }
    if first["is_on_the_loop"]:
        contestants[BARE] = bare
    if workers != (os.cpu_count() or 1):
        contestants[ALL] = lambda: alone(best, os.cpu_count() or 1)
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for number in range(plan.rounds):
        for name in order:
            rounds[name].append(contestants[name]())
        order = [*order[1:], order[0]]
        stage.say(f"throughput: {model.name}, round {number + 1}/{plan.rounds}")
    return {
        "clients": clients,
        "workers": workers,
        "niceness": niceness,
        "tried": tried,
        "batch": best,
        "rows_a_batch": rows_a_batch,
        "rounds": rounds,
    }


def in_child(job: Mapping[str, Any]) -> dict[str, Any]:
    """Saturate an engine, onnxruntime alone, or callers with nothing between them and it."""
    gc.disable()
    gc.freeze()
    match job["what"]:
        case "engine":
            return asyncio.run(_engine(job))
        case "bare":
            return asyncio.run(_bare(job))
        case _:
            return _alone(job)


async def _engine(job: Mapping[str, Any]) -> dict[str, Any]:
    gc.enable()  # as in the runtime
    model = models.describe(job["name"], Path(job["onnx"]))
    engine = Engine(EngineOptions())
    options = model_options(ModelOptions(), OPTIONS)
    await engine.load(ModelSource.of(model.name, "1", model.artifact, "onnx", options))
    runner, loop = engine.runner(model.name, "1"), asyncio.get_running_loop()
    rows = np.repeat(model.payload.data, job["rows"], axis=0)
    request = InferRequest(model.name, "1", (Tensor(model.payload.input, "FP32", rows),))

    async def ask() -> Array:
        answered = await engine.answer(request, "1", deadline=loop.time() + PATIENCE_S)
        return answered.outputs[0].data

    calls_per_s = await _calls_per_s(job, model, ask)
    snapshot = runner.stats.snapshot()
    found = {
        "per_s": calls_per_s * job["rows"],
        "workers": runner.workers,
        "is_on_the_loop": runner.service.is_quick(1),
        "rows_a_batch": snapshot.inference_count / max(1, snapshot.execution_count),
    }
    await engine.close()
    return found


async def _bare(job: Mapping[str, Any]) -> dict[str, Any]:
    gc.enable()
    model = models.describe(job["name"], Path(job["onnx"]))
    session = _session(job)
    feed = {model.payload.input: model.payload.data}

    async def ask() -> Array:
        (answer,) = session.run(None, feed)
        return cast(Array, answer)

    return {"per_s": await _calls_per_s(job, model, ask)}


async def _calls_per_s(
    job: Mapping[str, Any], model: BenchModel, ask: Callable[[], Awaitable[Array]]
) -> float:
    """Let each client ask again and again, giving way to the others once between.

    Raises ValueError when a last answer is not the model's.
    """
    opens = time.perf_counter() + job["warm_s"]
    closes = opens + job["measure_s"]
    calls = 0

    async def client() -> None:
        nonlocal calls
        while time.perf_counter() < closes:
            answer = await ask()
            calls += opens <= time.perf_counter() < closes
            await asyncio.sleep(0)
        model.check(np.asarray(answer[:1], np.float32))

    async with asyncio.TaskGroup() as group:
        for _ in range(job["clients"]):
            group.create_task(client())
    return float(calls / job["measure_s"])


def _session(job: Mapping[str, Any]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])


def _alone(job: Mapping[str, Any]) -> dict[str, Any]:
    session = _session(job)
    (node,) = session.get_inputs()
    feed = {node.name: np.ascontiguousarray(models.rows(session, job["batch"]))}
    rates: list[float] = []
    barrier = threading.Barrier(job["threads"])

    def run() -> None:
        until = time.perf_counter() + job["warm_s"]
        while time.perf_counter() < until:
            session.run(None, feed)
        barrier.wait()
        began, rows, lasted_s = time.perf_counter(), 0, 0.0
        while lasted_s < job["measure_s"]:
            session.run(None, feed)
            rows += job["batch"]
            lasted_s = time.perf_counter() - began
        rates.append(rows / lasted_s)

    threads = [threading.Thread(target=run) for _ in range(job["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"per_s": sum(rates)}
