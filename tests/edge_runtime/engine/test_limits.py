"""Deadlines, cancellation, admission and closing of a runner."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import numpy as np
import pytest

from edge_runtime.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from tests.edge_runtime.engine.conftest import Serve
from tests.edge_runtime.engine.gate import Floats, GateBackend, later, request, until
from tests.edge_runtime.engine.test_batching import HOUR_MS, answers, ask, busy


async def test_a_request_whose_time_is_over_in_the_queue_is_never_computed(
    serve: Serve,
) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    first = await busy(runner, backend)
    with pytest.raises(DeadlineExceeded):
        await ask(runner, [7.0], seconds=0.02)
    assert runner.queued == 0
    backend.gate.set()
    await first
    assert backend.rows == [1]
    stats = runner.stats
    assert (stats.expired, stats.fail.count, stats.cancel.count, stats.success.count) == (
        1,
        1,
        0,
        1,
    )


async def test_a_late_loop_drops_what_expired_meanwhile_instead_of_computing_it(
    serve: Serve,
) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    first = await busy(runner, backend)
    short = ask(runner, [7.0], seconds=0.05)
    await until(lambda: runner.queued == 1)
    backend.gate.set()
    time.sleep(0.1)  # noqa: ASYNC251 (the loop is kept from its timers on purpose)
    with pytest.raises(DeadlineExceeded):
        await short
    await first
    assert backend.rows == [1]
    assert (runner.stats.expired, runner.stats.fail.count) == (1, 1)


async def test_a_run_past_its_deadline_is_aborted(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    with pytest.raises(DeadlineExceeded):
        await ask(runner, [1.0], seconds=0.02)
    await until(lambda: runner.running == 0)
    assert backend.aborted == 1
    assert not backend.gate.is_set()


async def test_a_request_without_time_left_is_refused_at_once(serve: Serve) -> None:
    backend = GateBackend()
    runner = serve(backend)
    with pytest.raises(DeadlineExceeded):
        await runner.infer(request([1.0]), deadline=later(-1.0))
    assert backend.rows == []
    assert runner.stats.expired == 1


async def test_a_caller_that_gives_up_frees_its_place_in_the_queue(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend, max_queue=1)
    first = await busy(runner, backend)
    waiting = ask(runner, [1.0])
    await until(lambda: runner.queued == 1)
    with pytest.raises(Overloaded):
        await ask(runner, [2.0])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    instead = ask(runner, [3.0])
    await until(lambda: runner.queued == 1)
    backend.gate.set()
    assert answers([await first, await instead]) == [[[0.0]], [[6.0]]]
    assert (runner.stats.cancel.count, runner.stats.rejected) == (1, 1)


async def test_a_batch_is_aborted_only_when_nobody_waits_for_it_any_more(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    first = await busy(runner, backend)
    pair = [ask(runner, [1.0]), ask(runner, [2.0])]
    await until(lambda: runner.queued == 2)
    first.cancel()
    await until(lambda: len(backend.inputs) == 2)
    assert backend.aborted == 1
    pair[0].cancel()
    await asyncio.wait(pair[:1])
    assert (backend.aborted, runner.running) == (1, 1)
    pair[1].cancel()
    await until(lambda: runner.running == 0)
    assert backend.aborted == 2
    assert runner.stats.cancel.count == 3


async def test_the_neighbour_of_a_caller_that_gave_up_gets_its_own_answer(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    first = await busy(runner, backend)
    gone, stays = ask(runner, [1.0]), ask(runner, [2.0])
    await until(lambda: runner.queued == 2)
    first.cancel()
    await until(lambda: backend.rows == [1, 2])
    gone.cancel()
    backend.gate.set()
    assert answers([await stays]) == [[[4.0]]]


async def test_a_full_queue_refuses_and_says_when_to_come_back(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend, max_queue=2)
    tasks = [await busy(runner, backend), ask(runner, [1.0]), ask(runner, [1.0])]
    await until(lambda: runner.queued == 2)
    with pytest.raises(Overloaded) as refused:
        await ask(runner, [2.0])
    assert refused.value.details["reason"] == "queue_full"
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 0.1
    backend.gate.set()
    await asyncio.gather(*tasks)
    assert runner.stats.rejected == 1


@pytest.mark.parametrize(("seconds", "reason"), [(600.0, "queue_wait"), (0.5, "deadline")])
async def test_what_would_wait_too_long_is_refused_while_the_queue_has_room(
    serve: Serve, seconds: float, reason: str
) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend, max_queue_wait_ms=4000.0)
    runner.service.saw(1, 1.0)
    tasks = [await busy(runner, backend)]
    if reason == "queue_wait":
        tasks += [ask(runner, [1.0]), ask(runner, [1.0])]
        await until(lambda: runner.queued == 2)
    with pytest.raises(Overloaded) as refused:
        await ask(runner, [2.0], seconds=seconds)
    assert refused.value.details["reason"] == reason
    backend.gate.set()
    await asyncio.gather(*tasks)


async def test_an_idle_model_takes_a_request_whatever_it_expects_of_itself(serve: Serve) -> None:
    runner = serve(GateBackend())
    runner.service.saw(1, 100.0)
    assert answers([await ask(runner, [1.0], seconds=30.0)]) == [[[2.0]]]


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(serve: Serve) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    tasks = [await busy(runner, backend), ask(runner, [1.0])]
    await until(lambda: runner.queued == 1)
    closing = asyncio.create_task(runner.close(60.0))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await ask(runner, [2.0])
    assert not backend.is_closed
    backend.gate.set()
    await closing
    assert answers([await task for task in tasks]) == [[[0.0]], [[2.0]]]
    assert backend.is_closed


async def test_closing_waits_no_longer_than_the_last_caller(serve: Serve) -> None:
    runner = serve(GateBackend(), max_delay_ms=HOUR_MS)
    waiting = ask(runner, [1.0], seconds=7200.0)
    await until(lambda: runner.queued == 1)
    closing = asyncio.create_task(runner.close(3600.0))
    await asyncio.sleep(0)
    waiting.cancel()
    await closing


async def test_closing_a_model_that_is_not_done_in_time_tells_the_callers_and_aborts(
    serve: Serve,
) -> None:
    backend = GateBackend(is_open=False)
    runner = serve(backend)
    tasks = [await busy(runner, backend), ask(runner, [1.0])]
    await until(lambda: runner.queued == 1)
    await runner.close(0.01)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in found] == [Unavailable, Unavailable]
    assert backend.aborted == 1
    assert backend.is_closed
    assert runner.stats.fail.count == 2


async def test_closing_leaves_a_run_behind_that_does_not_stop(serve: Serve) -> None:
    backend = GateBackend(is_open=False, is_deaf=True)
    runner = serve(backend)
    task = await busy(runner, backend)
    await runner.close(0.01, abort_s=0.01)
    with pytest.raises(Unavailable):
        await task
    assert runner.running == 0
    assert backend.is_closed


async def test_whatever_happens_each_request_ends_once_and_nothing_is_left(
    serve: Serve,
) -> None:
    seed = 20_261
    rng = random.Random(seed)

    def compute(x: Floats) -> Floats:
        if (x == 13.0).any():
            raise InvalidInput("13")
        return x * np.float32(2)

    backend = GateBackend(compute)
    runner = serve(backend, instances=2, max_batch_size=4, max_queue=8, max_delay_ms=0.5)
    tasks = []
    for _ in range(400):
        value = rng.choice([1.0, 2.0, 3.0, 13.0])
        seconds = rng.choice([0.002, 0.01, 60.0, 60.0])
        row = [value] * rng.choice([1, 2])
        tasks.append(ask(runner, row, priority=rng.randrange(3), seconds=seconds))
        match rng.randrange(6):
            case 0:
                rng.choice(tasks).cancel()
            case 1:
                backend.gate.clear()
            case 2 | 3:
                backend.gate.set()
            case _:
                await asyncio.sleep(0.001)
    backend.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in found:
        if isinstance(outcome, tuple):
            assert outcome[0].data.tolist()[0][0] in (2.0, 4.0, 6.0), f"seed {seed}"
        else:
            kinds = (InvalidInput, DeadlineExceeded, Overloaded, asyncio.CancelledError)
            assert isinstance(outcome, kinds), f"seed {seed}: {outcome!r}"
    await until(lambda: runner.running == 0)
    stats = runner.stats
    outcomes = Counter(type(outcome) for outcome in found)
    cancelled = outcomes[asyncio.CancelledError]
    failed = outcomes[InvalidInput] + outcomes[DeadlineExceeded]
    # A caller may give up in the moment that its answer or error is there.
    assert 0 <= stats.success.count - outcomes[tuple] <= cancelled, f"seed {seed}"
    assert 0 <= stats.fail.count - failed <= cancelled, f"seed {seed}"
    assert stats.rejected == outcomes[Overloaded], f"seed {seed}"
    assert stats.expired <= stats.fail.count
    assert (runner.queued, runner.work_ahead_s) == (0, 0.0)
