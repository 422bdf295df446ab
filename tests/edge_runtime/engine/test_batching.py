from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from edge_runtime.engine.rungs import Ladder, ProcessorRung
from edge_runtime.engine.runner import ModelOptions, ModelRunner
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.types import InferRequest, RequestedOutput, Signature, Tensor, TensorSpec
from tests.edge_runtime.engine.conftest import Serve
from tests.edge_runtime.engine.gate import Floats, GateBackend, doubled, later, request, until

HOUR_MS = 3_600_000.0
FIXED_ROWS = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))


async def busy(runner: ModelRunner, backend: GateBackend) -> asyncio.Task[tuple[Tensor, ...]]:
    """Occupy the only worker until the gate opens."""
    task = asyncio.create_task(runner.infer(request([0.0]), deadline=later()))
    await until(lambda: len(backend.inputs) == 1)
    return task


def ask(
    runner: ModelRunner, *rows: list[float], priority: int = 0, seconds: float = 60.0
) -> asyncio.Task[tuple[Tensor, ...]]:
    return asyncio.create_task(
        runner.infer(request(*rows), deadline=later(seconds), priority=priority)
    )


def answers(outputs: list[tuple[Tensor, ...]]) -> list[list[list[float]]]:
    return [tensor.data.tolist() for (tensor,) in outputs]


async def test_requests_that_wait_for_a_worker_run_as_one_batch(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    first = await busy(runner, backend)
    waiting = [ask(runner, [float(i)], [float(-i)]) for i in range(3)]
    await until(lambda: runner.queued == 3)
    backend.gate.set()
    assert answers([await first]) == [[[0.0]]]
    expected = [[[2.0 * i], [-2.0 * i]] for i in range(3)]
    assert answers([await task for task in waiting]) == expected
    assert backend.rows == [1, 6]


async def test_a_batch_holds_no_more_rows_than_the_option_says(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend, max_batch_size=4)
    tasks = [await busy(runner, backend)]
    tasks += [ask(runner, *([[1.0]] * rows)) for rows in (2, 2, 3, 9, 1)]
    await until(lambda: runner.queued == 5)
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert backend.rows == [1, 4, 3, 9, 1]


async def test_requests_of_different_shapes_are_not_stacked(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    tasks = [await busy(runner, backend)]
    tasks += [ask(runner, row) for row in ([1.0], [1.0, 2.0], [3.0], [4.0, 5.0])]
    await until(lambda: runner.queued == 4)
    backend.gate.set()
    found = answers([await task for task in tasks])
    assert found[1:] == [[[2.0]], [[2.0, 4.0]], [[6.0]], [[8.0, 10.0]]]
    assert sorted(x.shape for x in backend.inputs) == [(1, 1), (2, 1), (2, 2)]


async def test_the_most_urgent_request_goes_first(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend, max_batch_size=1)
    tasks = [await busy(runner, backend)]
    for value, priority, seconds in ((1.0, 1, 50.0), (2.0, 0, 60.0), (3.0, 0, 40.0)):
        tasks.append(ask(runner, [value], priority=priority, seconds=seconds))
    await until(lambda: runner.queued == 3)
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert [float(x[0, 0]) for x in backend.inputs] == [0.0, 2.0, 3.0, 1.0]


async def test_who_is_in_a_hurry_is_told_of_a_shorter_wait_and_passes_others(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend, max_batch_size=1)
    tasks = [await busy(runner, backend)]
    runner.service.saw(1, 0.0625)
    row_s = runner.service.row_s
    tasks += [ask(runner, [value], seconds=50.0) for value in (1.0, 2.0, 3.0)]
    await until(lambda: runner.queued == 3)
    hasty, *_, patient = runner.wait_s(asyncio.get_running_loop().time())
    assert (hasty, patient) == pytest.approx((0.5 * row_s, 3.5 * row_s))
    tasks.append(ask(runner, [4.0], seconds=0.9))
    await until(lambda: runner.queued == 4)
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert [float(x[0, 0]) for x in backend.inputs] == [0.0, 4.0, 1.0, 2.0, 3.0]


async def test_an_answer_says_what_its_request_takes_alone(serve: Serve) -> None:
    backend = GateBackend(signature=FIXED_ROWS)
    runner = serve(backend)
    rows = Tensor("x", "FP32", np.ones((4, 1), np.float32))
    found = await runner.answer(InferRequest("m", None, (rows,)), deadline=later())
    assert found.alone_s == runner.service.lone(4) > 0.0


async def test_an_incomplete_batch_waits_for_more_and_starts_when_it_is_full(
    serve: Serve,
) -> None:
    backend = GateBackend()
    runner = serve(backend, max_batch_size=2, max_delay_ms=HOUR_MS)
    first = ask(runner, [1.0], seconds=7200.0)
    await until(lambda: runner.queued == 1)
    assert backend.rows == []
    second = ask(runner, [2.0], seconds=7200.0)
    assert answers([await first, await second]) == [[[2.0]], [[4.0]]]
    assert backend.rows == [2]


async def test_an_incomplete_batch_starts_when_the_delay_is_over(serve: Serve) -> None:
    backend = GateBackend()
    runner = serve(backend, max_batch_size=8, max_delay_ms=30.0)
    assert answers([await ask(runner, [1.0])]) == [[[2.0]]]
    assert backend.rows == [1]


async def test_waiting_for_more_does_not_use_up_a_request_s_own_time(serve: Serve) -> None:
    backend = GateBackend()
    runner = serve(backend, max_batch_size=8, max_delay_ms=HOUR_MS)
    assert answers([await ask(runner, [1.0], seconds=1.0)]) == [[[2.0]]]


async def test_a_full_batch_does_not_wait_behind_an_urgent_incomplete_one(serve: Serve) -> None:
    backend = GateBackend()
    runner = serve(backend, max_batch_size=2, max_delay_ms=HOUR_MS)
    urgent = ask(runner, [1.0], priority=0, seconds=7200.0)
    await until(lambda: runner.queued == 1)
    full = ask(runner, [1.0, 2.0], [3.0, 4.0], priority=1, seconds=7200.0)
    assert answers([await full]) == [[[2.0, 4.0], [6.0, 8.0]]]
    assert not urgent.done()
    urgent.cancel()
    with suppress(asyncio.CancelledError):
        await urgent


async def test_two_workers_run_two_batches_at_once(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend, instances=2)
    tasks = [ask(runner, [1.0]), ask(runner, [2.0])]
    await until(lambda: runner.running == 2)
    backend.gate.set()
    await asyncio.gather(*tasks)


async def test_there_are_no_more_workers_than_threads(serve: Serve) -> None:
    assert serve(GateBackend(), instances=5).workers == 2


async def test_a_run_counts_as_busy_before_it_ends(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    task = ask(runner, [1.0])
    await until(lambda: runner.running == 1)
    await until(lambda: runner.busy_share() > 0.5)
    backend.gate.set()
    await task
    await until(lambda: runner.busy_share() < 0.5)


async def test_a_slow_model_gets_every_worker_and_a_fast_one_a_single_one(serve: Serve) -> None:
    runner = serve(GateBackend(), instances=0)
    assert runner.workers == 1  # nothing is known yet
    runner.service.saw(1, 0.1)
    assert runner.workers == 2
    for _ in range(100):
        runner.service.saw(1, 1e-5)
    assert runner.workers == 1


def _fails_on_13(error: Exception) -> GateBackend:
    def compute(x: Floats) -> Floats:
        if (x == 13.0).any():
            raise error
        return x * np.float32(2)

    return GateBackend(compute, is_open=False)


@pytest.mark.parametrize(
    "error", [InvalidInput("not 13"), ValueError("13"), RuntimeError("13"), MemoryError()]
)
async def test_a_bad_request_fails_and_its_neighbours_in_the_batch_do_not(
    serve: Serve, error: Exception
) -> None:
    backend = _fails_on_13(error)
    runner = serve(backend)
    tasks = [await busy(runner, backend)]
    tasks += [ask(runner, [value]) for value in (1.0, 13.0, 3.0)]
    await until(lambda: runner.queued == 3)
    backend.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[2] is error
    good = [outputs[0].data.tolist() for outputs in found if isinstance(outputs, tuple)]
    assert good == [[[0.0]], [[2.0]], [[6.0]]]
    assert backend.rows == [1, 3, 1, 1, 1]


async def test_a_model_whose_answer_has_not_a_row_for_each_row_is_run_request_by_request(
    serve: Serve,
) -> None:
    backend = GateBackend(lambda x: x[:1] + x[-1:], is_open=False)
    runner = serve(backend)
    tasks = [await busy(runner, backend), ask(runner, [1.0]), ask(runner, [2.0])]
    await until(lambda: runner.queued == 2)
    backend.gate.set()
    assert answers([await task for task in tasks]) == [[[0.0]], [[2.0]], [[4.0]]]


async def test_a_model_without_a_batch_dimension_runs_each_request_alone(serve: Serve) -> None:
    fixed = Signature((TensorSpec("x", "FP32", (1, 2)),), (TensorSpec("y", "FP32", (1, 2)),))
    backend = GateBackend(is_open=False, signature=fixed)
    runner = serve(backend)
    tasks = [ask(runner, [float(i), 0.0]) for i in range(3)]
    await until(lambda: runner.queued == 2)
    backend.gate.set()
    assert answers([await t for t in tasks]) == [[[2.0 * i, 0.0]] for i in range(3)]
    assert backend.rows == [1, 1, 1]


def where(backend: GateBackend) -> list[str]:
    """Return the kind of thread of each run."""
    return [name.split("_")[0] for name in backend.threads]


async def test_a_fast_model_is_computed_on_the_loop(serve: Serve) -> None:
    backend = GateBackend(signature=FIXED_ROWS)
    runner = serve(backend)
    runner.service.saw(1, 1e-5)
    await runner.infer(request([1.0]), deadline=later())
    assert where(backend) == ["MainThread"]


async def test_a_model_that_is_fast_only_at_its_best_stays_off_the_loop(serve: Serve) -> None:
    backend = GateBackend(signature=FIXED_ROWS)
    runner = serve(backend)
    for _ in range(10):
        runner.service.saw(1, 1e-5)
        runner.service.saw(1, 0.01)
    await runner.infer(request([1.0]), deadline=later())
    assert where(backend) == ["worker"]


async def test_a_model_that_waits_for_something_else_stays_off_the_loop(serve: Serve) -> None:
    backend = GateBackend(signature=FIXED_ROWS)
    runner = serve(backend)
    runner.service.saw(1, 0.01, thread_s=1e-5)  # an accelerator
    await runner.infer(request([1.0]), deadline=later())
    assert where(backend) == ["worker"]


async def test_a_fast_model_stays_on_the_loop_of_a_machine_that_is_short_of_time(
    serve: Serve,
) -> None:
    backend = GateBackend(signature=FIXED_ROWS)
    runner = serve(backend)
    runner.service.saw(1, 1e-5)
    for _ in range(50):
        runner.service.saw(1, 0.05, thread_s=1e-5)  # it waited for processor and lock
    assert runner.service.lone(1) < 1e-4
    await runner.infer(request([1.0]), deadline=later())
    assert where(backend) == ["MainThread"]


async def test_a_fast_request_does_not_wait_for_a_slow_batch_that_runs(serve: Serve) -> None:
    may_end = threading.Event()

    def compute(x: Floats) -> Floats:
        if len(x) > 1:
            may_end.wait()
        return doubled(x)

    backend = GateBackend(compute, signature=FIXED_ROWS)
    runner = serve(backend)
    runner.service.saw(1, 1e-5)
    runner.service.saw(8, 1.0)
    slow = ask(runner, *([[1.0]] * 8))
    await until(lambda: backend.rows == [8])
    assert answers([await runner.infer(request([2.0]), deadline=later())]) == [[[4.0]]]
    may_end.set()
    await slow
    assert where(backend) == ["worker", "MainThread"]


async def test_what_has_queued_up_goes_over_the_loop_when_it_is_quick(serve: Serve) -> None:
    backend = GateBackend(is_open=False, signature=FIXED_ROWS)
    runner = serve(backend)
    first = await busy(runner, backend)
    waiting = [ask(runner, [float(i)]) for i in range(12)]
    await until(lambda: runner.queued == 12)
    for rows in (4, 8):
        runner.service.saw(rows, 1e-5)
    backend.gate.set()
    await first
    assert answers([await task for task in waiting]) == [[[2.0 * i]] for i in range(12)]
    assert backend.rows == [1, 8, 4]
    assert where(backend) == ["worker", "MainThread", "MainThread"]
    assert runner.stats.success.count == 13


async def test_a_quick_model_that_was_taken_for_slow_finds_back_to_the_loop(serve: Serve) -> None:
    backend = GateBackend(signature=FIXED_ROWS)
    runner = serve(backend, max_batch_size=2)
    runner.service.saw(1, 1e-5)
    runner.service.saw(1, 0.05)
    runner.service.saw(2, 0.05)
    for _ in range(20):
        await asyncio.gather(*(ask(runner, [1.0]) for _ in range(20)))
    assert where(backend)[0] == "worker"
    assert where(backend)[-1] == "MainThread"


async def test_callers_who_send_more_than_a_row_are_stacked_for_ever(serve: Serve) -> None:
    def compute(x: Floats) -> Floats:
        time.sleep(0.002)
        return doubled(x)

    backend = GateBackend(compute, signature=FIXED_ROWS)
    runner = serve(backend)
    runner.service.saw(1, 1e-5)
    for rows in (2, 4, 8):
        runner.service.saw(rows, 0.05)
    for _ in range(20):
        await ask(runner, [1.0], [1.0])
    backend.gate.clear()
    backend.inputs.clear()
    tasks = [ask(runner, [1.0], [1.0])]
    await until(lambda: backend.rows == [2])
    tasks += [ask(runner, [float(i)], [1.0]) for i in range(3)]
    await until(lambda: runner.queued == 3)
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert backend.rows == [2, 6]


async def test_what_was_answered_is_forgotten_without_the_collector(serve: Serve) -> None:
    backend = GateBackend()
    runner = serve(backend)
    asked = request([1.0])
    kept = weakref.ref(asked.inputs[0].data)
    gc.disable()
    try:
        await runner.infer(asked, deadline=later())
        assert where(backend) == ["worker"]
        del asked
        backend.inputs.clear()
        await until(lambda: kept() is None)
    finally:
        gc.enable()


async def test_a_bad_request_on_the_loop_does_not_fail_its_neighbours(serve: Serve) -> None:
    backend = _fails_on_13(InvalidInput("13"))
    backend.signature = FIXED_ROWS
    runner = serve(backend)
    first = await busy(runner, backend)
    waiting = [ask(runner, [x]) for x in (1.0, 13.0, 2.0)]
    await until(lambda: runner.queued == 3)
    for rows in (1, 3):
        runner.service.saw(rows, 1e-5)
    backend.gate.set()
    await first
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[1], InvalidInput)
    assert answers([found[0], found[2]]) == [[[2.0]], [[4.0]]]  # type: ignore[list-item]
    assert where(backend)[1] == "MainThread"


async def test_a_model_whose_rows_may_be_of_any_size_never_holds_up_the_loop(
    serve: Serve,
) -> None:
    backend = GateBackend()  # [-1, -1]: what one row costs is up to the caller
    runner = serve(backend)
    runner.service.saw(1, 1e-5)
    await runner.infer(request([1.0] * 8), deadline=later())
    assert backend.threads[0].startswith("worker")


async def test_an_error_on_the_loop_is_counted_and_leaves_the_runner_usable(
    serve: Serve,
) -> None:
    backend = _fails_on_13(RuntimeError("13"))
    backend.signature = FIXED_ROWS
    backend.gate.set()
    runner = serve(backend)
    runner.service.saw(1, 1e-5)
    with pytest.raises(RuntimeError):
        await runner.infer(request([13.0]), deadline=later())
    assert answers([await runner.infer(request([1.0]), deadline=later())]) == [[[2.0]]]
    assert (runner.stats.fail.count, runner.stats.success.count) == (1, 1)


async def test_a_request_that_does_not_fit_is_refused_before_it_waits(serve: Serve) -> None:
    backend = GateBackend()
    runner = serve(backend)
    good = request([1.0])
    unknown = type(good)("m", None, good.inputs, (RequestedOutput("z"),))
    for bad, field in ((unknown, "z"), (type(good)("m", None, ()), "x")):
        with pytest.raises(InvalidInput) as error:
            await runner.infer(bad, deadline=later())
        assert error.value.field == field
    assert backend.rows == []


async def test_warming_up_learns_the_service_time_of_one_row_and_of_a_batch(
    serve: Serve,
) -> None:
    backend = GateBackend()
    runner = serve(backend, max_batch_size=8)
    await runner.warm_up()
    assert backend.rows == [1, 1, 1, 8]
    assert runner.service.estimate(1) > 0
    assert runner.stats.execution_count == 0


async def test_warming_up_ends_early_for_a_model_too_slow_for_it(serve: Serve) -> None:
    def compute(x: Floats) -> Floats:
        until_s = time.thread_time() + 0.002  # more than 0.5 ms a row
        while time.thread_time() < until_s:
            pass
        return doubled(x)

    backend = GateBackend(compute)
    runner = serve(backend, max_batch_size=1000)
    await runner.warm_up()
    assert backend.rows == [1]
    assert runner.service.estimate(1) > 0.0005


@pytest.mark.parametrize(("slow_runs", "rows"), [(2, [1, 1, 1, 20]), (3, [1, 1, 1])])
async def test_runs_that_wait_for_the_processor_do_not_make_a_model_slow(
    serve: Serve, slow_runs: int, rows: list[int]
) -> None:
    def compute(x: Floats) -> Floats:
        if len(backend.rows) <= slow_runs:
            time.sleep(0.05)
        return doubled(x)

    backend = GateBackend(compute)
    runner = serve(backend, max_batch_size=20)
    await runner.warm_up()
    assert backend.rows == rows
    assert (runner.service.estimate(1) > 0.04) == (slow_runs == 3)


async def test_a_model_that_refuses_zeros_starts_cold(serve: Serve) -> None:
    def compute(x: Floats) -> Floats:
        if not x.any():
            raise InvalidInput("zeros")
        return x

    runner = serve(GateBackend(compute))
    await runner.warm_up()
    assert runner.service.estimate(1) == 0.0
    assert answers([await runner.infer(request([1.0]), deadline=later())]) == [[[1.0]]]


async def test_a_crash_in_the_warm_up_is_not_taken_for_a_refusal() -> None:
    backend = GateBackend(lambda x: x[: 1 // 0])
    with ThreadPoolExecutor(1) as pool:
        ladder = Ladder([ProcessorRung("cpu", backend, pool, 1)])
        runner = ModelRunner("m", "1", ladder, ModelOptions())
        with pytest.raises(ZeroDivisionError):
            await runner.warm_up()
