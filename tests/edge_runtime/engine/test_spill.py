"""What an accelerator would have to refuse is computed on the processor, while that has room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_runtime.backends.base import AcceleratorFault
from edge_runtime.engine.rungs import AcceleratorRung, Ladder, ProcessorRung
from edge_runtime.engine.runner import Answered, ModelOptions, ModelRunner
from edge_runtime.errors import DeadlineExceeded, Overloaded, Unavailable
from edge_runtime.protocol.types import Array, Signature, Tensor, TensorSpec
from tests.edge_runtime.engine.gate import SIGNATURE, GateBackend, later, request, until

FIXED = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))
SLOW_S = 0.2  # a row on the device, as known


class Device:
    """An accelerator backend that gives 2 x when it may."""

    name = "device"
    platform = "test"
    depth = 1
    asked_at = 0.0
    why = ""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.gate = asyncio.Event()
        self.is_lost = False
        self.runs = 0

    async def run(
        self, rows: Sequence[Mapping[str, Array]], outputs: Sequence[str]
    ) -> tuple[list[list[Array]], float]:
        self.runs += 1
        await self.gate.wait()
        if self.is_lost:
            raise AcceleratorFault("lost")
        return [[np.multiply(row["x"], 2, dtype=np.float32)] for row in rows], 0.0

    def close(self) -> None:
        return


class Bench:
    """A runner whose device is known to be slow, above a processor with a gate."""

    def __init__(self, processor_s: float, workers: int, signature: Signature) -> None:
        self.device = Device(signature)
        self.processor = GateBackend(is_open=False, signature=signature)
        pool = ThreadPoolExecutor(workers)
        rungs = (
            AcceleratorRung("hailo", self.device),
            ProcessorRung("cpu", self.processor, pool, workers),
        )
        rungs[0].service.saw(1, SLOW_S)
        rungs[1].service.saw(1, processor_s)
        self.ladder = Ladder(rungs)
        self.runner: ModelRunner

    def serve(self, **options: float) -> ModelRunner:
        chosen = {"max_queue_wait_ms": SLOW_S * 2500, "max_batch_size": 1, **options}
        self.runner = ModelRunner("m", "1", self.ladder, ModelOptions(**chosen))  # type: ignore[arg-type]
        return self.runner

    def ask(self, value: float, seconds: float = 60.0) -> asyncio.Task[Answered]:
        answer = self.runner.answer(request([value]), deadline=later(seconds))
        return asyncio.create_task(answer)

    async def fill(self) -> list[asyncio.Task[Answered]]:
        """Ask until the device has as much work as it may."""
        first = self.ask(0.0)
        await until(lambda: self.device.runs == 1)
        second = self.ask(1.0)
        await until(lambda: self.runner.queued == 1)
        return [first, second]


@pytest.fixture
async def bench() -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(
        processor_s: float = 0.01, workers: int = 1, signature: Signature = SIGNATURE
    ) -> Bench:
        made.append(Bench(processor_s, workers, signature))
        return made[-1]

    yield make
    for each in made:
        each.device.gate.set()
        each.processor.gate.set()
        await each.runner.close(10.0)


def value_of(answered: Answered) -> tuple[str, list[list[float]]]:
    (output,) = answered.outputs
    assert isinstance(output, Tensor)
    return answered.rung, output.data.tolist()


async def test_the_processor_takes_what_the_device_would_refuse_and_no_more(
    bench: Callable[..., Bench],
) -> None:
    made = bench(workers=2)
    runner = made.serve()
    full = await made.fill()
    beside = [made.ask(float(n)) for n in (2, 3)]
    await until(lambda: len(made.processor.inputs) == 2)
    with pytest.raises(Overloaded):
        await made.ask(4.0)
    made.processor.gate.set()
    assert [value_of(await task) for task in beside] == [("cpu", [[4.0]]), ("cpu", [[6.0]])]
    assert value_of(await made.ask(5.0)) == ("cpu", [[10.0]])
    made.device.gate.set()
    assert [value_of(await task) for task in full] == [("hailo", [[0.0]]), ("hailo", [[2.0]])]
    assert value_of(await made.ask(6.0))[0] == "hailo"
    assert runner.stats.rejected == 1


async def test_a_quick_model_spills_onto_the_loop(bench: Callable[..., Bench]) -> None:
    made = bench(processor_s=0.0001, signature=FIXED)
    made.processor.gate.set()
    made.serve()
    await made.fill()
    many = [value_of(await made.ask(float(n))) for n in range(5)]
    assert many == [("cpu", [[2.0 * n]]) for n in range(5)]


@pytest.mark.parametrize(
    ("options", "processor_s", "seconds"),
    [({"spill": 0}, 0.01, 60.0), ({}, 5.0, 1.0)],
    ids=["switched off", "not in time"],
)
async def test_it_is_refused_where_that_is_no_help(
    bench: Callable[..., Bench], options: dict[str, float], processor_s: float, seconds: float
) -> None:
    made = bench(processor_s=processor_s)
    runner = made.serve(**options)
    await made.fill()
    with pytest.raises(Overloaded):
        await made.ask(2.0, seconds)
    assert made.processor.inputs == []
    assert runner.stats.rejected == 1


async def test_a_caller_who_leaves_frees_the_place_and_one_who_is_late_is_told(
    bench: Callable[..., Bench],
) -> None:
    made = bench()
    made.serve()
    await made.fill()
    before = len(asyncio.all_tasks())
    leaving = made.ask(2.0)
    await until(lambda: len(made.processor.inputs) == 1)
    leaving.cancel()
    await until(lambda: made.processor.aborted == 1)
    await until(lambda: len(asyncio.all_tasks()) == before)  # its run has ended
    late = made.ask(3.0, 2.0)
    await until(lambda: len(made.processor.inputs) == 2)
    with pytest.raises(DeadlineExceeded):
        await late


async def test_closing_waits_for_it_or_gives_it_up(bench: Callable[..., Bench]) -> None:
    made = bench()
    runner = made.serve()
    await made.fill()
    beside = made.ask(2.0)
    await until(lambda: len(made.processor.inputs) == 1)
    made.device.gate.set()
    closing = asyncio.create_task(runner.close(10.0))
    await until(lambda: not (runner.running or runner.queued))
    await asyncio.sleep(0.02)
    assert not closing.done()
    assert not runner.is_idle
    made.processor.gate.set()
    assert value_of(await beside) == ("cpu", [[4.0]])
    await closing

    second = bench()
    runner = second.serve()
    full = await second.fill()
    beside = second.ask(2.0)
    await until(lambda: len(second.processor.inputs) == 1)
    closing = asyncio.create_task(runner.close(0.05))
    for task in (*full, beside):
        with pytest.raises(Unavailable):
            await task
    second.device.gate.set()
    await closing
