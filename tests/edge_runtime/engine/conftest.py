from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_runtime.engine.rungs import Ladder, ProcessorRung
from edge_runtime.engine.runner import ModelOptions, ModelRunner
from tests.edge_runtime.engine.gate import GateBackend

Serve = Callable[..., ModelRunner]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Make runners on a pool of two threads; nothing of them may be left at the end."""
    pool = ThreadPoolExecutor(2, thread_name_prefix="worker")
    made: list[ModelRunner] = []

    def make(backend: GateBackend, **options: float) -> ModelRunner:
        options.setdefault("instances", 1)
        ladder = Ladder([ProcessorRung("cpu", backend, pool, 2)])
        runner = ModelRunner("m", "1", ladder, ModelOptions(**options))  # type: ignore[arg-type]
        made.append(runner)
        return runner

    yield make
    for runner in made:
        runner.ladder.rungs[0].backend.gate.set()  # type: ignore[union-attr]
        await runner.close(10.0)
        assert (runner.queued, runner.running, runner.work_ahead_s) == (0, 0, 0.0)
    await asyncio.sleep(0)  # tasks that are done leave the loop in its next turn
    assert asyncio.all_tasks() == {asyncio.current_task()}
    pool.shutdown()
