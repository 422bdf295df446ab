"""Answers from memory: where a model allows it, marked, and old ones as the last resort only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edge_runtime.backends.base import AcceleratorFault
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource
from edge_runtime.engine.recall import LARGE_BYTES, Recall
from edge_runtime.engine.rungs import AcceleratorRung, Ladder
from edge_runtime.engine.runner import Answered, ModelRunner
from edge_runtime.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from edge_runtime.protocol.types import Array, InferRequest, RequestedOutput, Signature, Tensor
from tests.clock import Clock
from tests.edge_runtime import onnx_models
from tests.edge_runtime.engine.conftest import Serve
from tests.edge_runtime.engine.gate import SIGNATURE, Floats, GateBackend, later, request, until
from tests.edge_runtime.engine.memory import MIB, Place, context

MINUTE_MS = 60_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def recall(clock: Clock) -> Recall:
    return Recall(16 * MIB, ThreadPoolExecutor(1, thread_name_prefix="hash"), clock)


Ask = Callable[..., "asyncio.Task[Answered]"]


def asking(recall: Recall, runner: ModelRunner) -> Ask:
    """Return what asks this model for an answer, from memory where it allows that."""

    def ask(*row: float, seconds: float = 60.0) -> asyncio.Task[Answered]:
        call = recall.answer(runner, request(row), deadline=later(seconds), priority=0)
        return asyncio.create_task(call)

    return ask


def value(answered: Answered) -> float:
    return float(answered.outputs[0].data[0][0])


class Device:
    """An accelerator backend that computes 2 x while there is no reason not to."""

    name = "device"
    platform = "test"
    signature: Signature = SIGNATURE
    depth = 2
    asked_at = 0.0

    def __init__(self) -> None:
        self.why = ""
        self.runs = 0
        self.fault: Exception | None = None

    async def run(
        self, rows: Sequence[Mapping[str, Array]], outputs: Sequence[str]
    ) -> tuple[list[list[Array]], float]:
        self.runs += 1
        if self.fault is not None:
            raise self.fault
        return [[np.multiply(row["x"], 2, dtype=np.float32)] for row in rows], 0.0

    def close(self) -> None:
        return


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
async def on_device(device: Device) -> AsyncIterator[Callable[..., ModelRunner]]:
    made: list[ModelRunner] = []

    def make(**options: float) -> ModelRunner:
        ladder = Ladder([AcceleratorRung("hailo", device)])
        made.append(ModelRunner("m", "1", ladder, ModelOptions(**options)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for runner in made:
        await runner.close(10.0)


# Fresh answers


async def test_without_the_option_each_request_is_computed(serve: Serve, recall: Recall) -> None:
    backend = GateBackend()
    ask = asking(recall, serve(backend))
    found = [await ask(1.0) for _ in range(3)]
    assert [(value(f), f.rung, f.age_s) for f in found] == [(2.0, "cpu", 0.0)] * 3
    assert len(backend.inputs) == 3
    assert recall.statistics().models == ()


async def test_an_answer_that_is_young_enough_is_given_again_and_marked(
    serve: Serve, recall: Recall, clock: Clock
) -> None:
    backend = GateBackend()
    runner = serve(backend, cache_ttl_ms=1000.0)
    ask = asking(recall, runner)
    first = await ask(1.0)
    clock.now += 0.75
    again = await ask(1.0)
    other = await ask(3.0)
    assert (first.rung, first.age_s) == ("cpu", 0.0)
    assert (value(again), again.rung, again.age_s) == (2.0, "cache", 0.75)
    assert (value(other), other.rung) == (6.0, "cpu")
    assert len(backend.inputs) == 2
    clock.now += 0.25
    assert (await ask(1.0)).rung == "cpu", "its time is over"
    assert len(backend.inputs) == 3


async def test_hits_are_counted_and_are_no_computations(serve: Serve, recall: Recall) -> None:
    runner = serve(GateBackend(), cache_ttl_ms=MINUTE_MS)
    ask = asking(recall, runner)
    for number in (1.0, 1.0, 1.0, 2.0):
        await ask(number)
    (counts,) = recall.statistics().models
    assert (counts.model, counts.version, counts.hits, counts.misses) == ("m", "1", 2, 2)
    statistics = runner.stats.snapshot()
    assert statistics.cache_hit.count == 2
    assert statistics.cache_hit.ns > 0
    assert (statistics.success.count, statistics.inference_count) == (2, 2)


async def test_those_who_ask_for_the_same_at_the_same_time_share_one_computation(
    serve: Serve, recall: Recall
) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend, cache_ttl_ms=MINUTE_MS)
    runner.service.saw(1, 0.05)
    ask = asking(recall, runner)
    tasks = [ask(1.0) for _ in range(10)]
    await until(lambda: len(backend.inputs) == 1)
    backend.gate.set()
    found = await asyncio.gather(*tasks)
    assert [value(f) for f in found] == [2.0] * 10
    assert sorted(f.rung for f in found) == ["cache"] * 9 + ["cpu"]
    assert backend.rows == [1]


async def test_an_answer_given_again_cannot_be_written_to(serve: Serve, recall: Recall) -> None:
    ask = asking(recall, serve(GateBackend(), cache_ttl_ms=MINUTE_MS))
    await ask(1.0)
    found = await ask(1.0)
    with pytest.raises(ValueError, match="read-only"):
        found.outputs[0].data[0] = 5.0


async def test_a_large_request_is_looked_up_off_the_loop_and_found(
    serve: Serve, recall: Recall
) -> None:
    ask = asking(recall, serve(GateBackend(), cache_ttl_ms=MINUTE_MS))
    row = [1.0] * (LARGE_BYTES // 4 + 1)
    assert not any(thread.name.startswith("hash") for thread in threading.enumerate())
    assert (await ask(*row)).rung == "cpu"
    assert any(thread.name.startswith("hash") for thread in threading.enumerate())
    assert (await ask(*row)).rung == "cache"
    assert (await ask(*row[:-1], 2.0)).rung == "cpu"


# Old answers


async def test_an_old_answer_is_given_when_nothing_can_compute_and_is_marked(
    on_device: Callable[..., ModelRunner], recall: Recall, device: Device, clock: Clock
) -> None:
    ask = asking(recall, on_device(cache_stale_ms=5000.0))
    assert (await ask(1.0)).rung == "hailo"
    assert (await ask(1.0)).rung == "hailo", "while it can be computed it is"
    device.why = "it is restarting"
    clock.now += 4.0
    found = await ask(1.0)
    assert (value(found), found.rung, found.age_s) == (2.0, "stale", 4.0)
    assert recall.statistics().models[0].stale == 1
    assert device.runs == 2
    device.why = ""
    assert (await ask(1.0)).rung == "hailo"


async def test_an_answer_that_was_lost_with_its_device_is_given_from_before(
    on_device: Callable[..., ModelRunner], recall: Recall, device: Device, clock: Clock
) -> None:
    ask = asking(recall, on_device(cache_stale_ms=5000.0))
    await ask(1.0)
    clock.now += 1.0
    device.fault = AcceleratorFault("gone")
    found = await ask(1.0)
    assert (value(found), found.rung) == (2.0, "stale")


async def test_an_answer_that_is_too_old_is_not_given(
    on_device: Callable[..., ModelRunner], recall: Recall, device: Device, clock: Clock
) -> None:
    ask = asking(recall, on_device(cache_stale_ms=5000.0))
    await ask(1.0)
    device.why = "it is gone"
    clock.now += 5.0
    assert (await ask(1.0)).rung == "stale"
    clock.now += 0.001
    with pytest.raises(Unavailable, match="it is gone"):
        await ask(1.0)


async def test_what_was_never_computed_is_not_given(
    on_device: Callable[..., ModelRunner], recall: Recall, device: Device
) -> None:
    ask = asking(recall, on_device(cache_stale_ms=5000.0))
    await ask(1.0)
    device.why = "it is gone"
    with pytest.raises(Unavailable):
        await ask(2.0)


async def test_without_that_option_a_fresh_answer_is_all_there_is(
    on_device: Callable[..., ModelRunner], recall: Recall, device: Device, clock: Clock
) -> None:
    ask = asking(recall, on_device(cache_ttl_ms=1000.0))
    await ask(1.0)
    device.why = "it is gone"
    assert (await ask(1.0)).rung == "cache"
    clock.now += 1.0
    with pytest.raises(Unavailable):
        await ask(1.0)


async def test_an_old_answer_is_given_when_the_queue_refuses(
    serve: Serve, recall: Recall, clock: Clock
) -> None:
    backend = GateBackend()
    runner = serve(backend, max_queue=1, cache_stale_ms=5000.0)
    ask = asking(recall, runner)
    await ask(1.0)
    clock.now += 2.0
    runner.service.saw(1, 0.05)
    backend.gate.clear()
    running = ask(7.0)
    await until(lambda: runner.running == 1)
    waiting = ask(8.0)
    await until(lambda: runner.queued == 1)
    found = await ask(1.0)
    assert (value(found), found.rung, found.age_s) == (2.0, "stale", 2.0)
    with pytest.raises(Overloaded):
        await ask(9.0)
    backend.gate.set()
    assert [value(f) for f in await asyncio.gather(running, waiting)] == [14.0, 16.0]


async def test_an_old_answer_is_not_given_for_a_request_that_the_model_refuses(
    serve: Serve, recall: Recall
) -> None:
    is_refusing = False

    def compute(x: Floats) -> Floats:
        if is_refusing:
            raise InvalidInput("not this")
        return x * np.float32(2)

    ask = asking(recall, serve(GateBackend(compute), cache_stale_ms=5000.0))
    await ask(1.0)
    is_refusing = True
    with pytest.raises(InvalidInput, match="not this"):
        await ask(1.0)


async def test_an_old_answer_is_not_given_for_a_deadline_that_has_passed(
    serve: Serve, recall: Recall
) -> None:
    backend = GateBackend()
    runner = serve(backend, cache_stale_ms=5000.0)
    ask = asking(recall, runner)
    await ask(1.0)
    runner.service.saw(1, 0.001)
    backend.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await ask(1.0, seconds=0.03)


async def test_a_request_that_does_not_fit_is_refused_and_never_looked_up(
    serve: Serve, recall: Recall
) -> None:
    runner = serve(GateBackend(), cache_ttl_ms=MINUTE_MS, cache_stale_ms=MINUTE_MS)
    wrong = InferRequest("m", None, (Tensor("z", "FP32", np.ones((1, 1), np.float32)),))
    with pytest.raises(InvalidInput, match="'x' is missing"):
        await recall.answer(runner, wrong, deadline=later(), priority=0)
    assert recall.statistics().models == ()


# Whose answers


async def test_the_answers_of_a_version_that_is_unloaded_are_forgotten() -> None:
    place = Place({"a": MIB}, 0, cache_ttl_ms=MINUTE_MS)
    await place.load("a")
    await place.ask("a")
    await place.ask("a")
    assert place.engine.recall.statistics().entries == 1
    await place.service.unload_model("a", {}, context())
    assert place.engine.recall.statistics().entries == 0
    await place.load("a")
    ran = len(place.loads.backends["a"].inputs)
    await place.ask("a")
    assert len(place.loads.backends["a"].inputs) == ran + 1
    await place.close()


async def test_a_version_that_had_to_make_room_keeps_its_answers() -> None:
    place = Place({"a": 40 * MIB, "b": 40 * MIB}, 50 * MIB, cache_ttl_ms=MINUTE_MS)
    await place.load("a")
    await place.ask("a", 3.0)
    await place.load("b")
    assert place.evicted == {"a"}
    assert place.engine.recall.statistics().entries == 1
    found = await place.service.infer(request([3.0], model="a"), context())
    assert found.rung == "cache"
    assert found.age_s > 0.0
    assert found.response.outputs[0].data.tolist() == [[6.0]]
    await place.close()


async def test_the_service_marks_an_answer_with_its_rung_and_age() -> None:
    place = Place({"a": MIB}, 0, cache_ttl_ms=MINUTE_MS)
    await place.load("a")
    first = await place.service.infer(request([1.0], model="a"), context())
    await asyncio.sleep(0.005)
    again = await place.service.infer(request([1.0], model="a"), context())
    assert "prime_spark_age_ms" not in first.response.parameters
    assert again.response.parameters["prime_spark_rung"] == "cache"
    age_ms = again.response.parameters["prime_spark_age_ms"]
    assert isinstance(age_ms, int)
    assert 5 <= age_ms <= again.age_s * 1e3
    await place.close()


async def test_an_answer_is_for_the_outputs_that_were_asked_for_in_their_order(
    tmp_path: Path,
) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])]
    value_of = ("FP32", ("n", 1))
    path = onnx_models.save(
        tmp_path / "m.onnx", nodes, [("x", *value_of)], [("a", *value_of), ("b", *value_of)]
    )
    engine = Engine(EngineOptions(threads=1))
    options = ModelOptions(cache_ttl_ms=MINUTE_MS)
    await engine.load(ModelSource.of("m", "1", path, "onnx", options))

    async def ask(*outputs: str) -> tuple[str, list[tuple[str, float]]]:
        (x,) = request([2.0]).inputs
        wanted = InferRequest("m", None, (x,), tuple(map(RequestedOutput, outputs)))
        found = await engine.answer(wanted, "1", deadline=later())
        return found.rung, [(t.name, float(t.data[0][0])) for t in found.outputs]

    a, b = ("a", -2.0), ("b", 2.0)
    for outputs, expected in (
        ((), [a, b]),
        (("a",), [a]),
        (("b",), [b]),
        (("b", "a"), [b, a]),
    ):
        assert await ask(*outputs) == ("cpu-fp32", expected)
        assert await ask(*outputs) == ("cache", expected)
    assert (await ask("a", "b"))[0] == "cache", "all of them, named"
    await engine.close()
