"""A version that is loaded again with other options takes them on without dropping a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.backends.base import Backend, BackendOptions
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource
from edge_runtime.errors import Corrupt, NotFound
from tests.edge_runtime import onnx_models
from tests.edge_runtime.engine.gate import GateBackend, later, request, until

KEY = ("m", "1")
OLD = ModelSource.of("m", "1", Path("model.gate"), "gate", ModelOptions())
NEW = replace(OLD, options=ModelOptions(max_batch_size=4, intra_op_threads=2))


class Loader:
    """Opens gate backends, or raises the error it was given."""

    def __init__(self) -> None:
        self.opened: list[GateBackend] = []
        self.asked: list[BackendOptions] = []
        self.most_open = 0
        self.error: Exception | None = None

    def __call__(self, artifact: Path, options: BackendOptions) -> Backend:
        if self.error is not None:
            raise self.error
        self.asked.append(options)
        self.opened.append(GateBackend())
        self.most_open = max(self.most_open, sum(not each.is_closed for each in self.opened))
        return self.opened[-1]


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
async def engine(loader: Loader) -> AsyncIterator[Engine]:
    made = Engine(EngineOptions(threads=2, drain_s=5.0), {"gate": loader})
    await made.load(OLD)
    yield made
    for backend in loader.opened:
        backend.gate.set()
    await made.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert all(backend.is_closed for backend in loader.opened)


async def _accepted(engine: Engine, loader: Loader) -> asyncio.Task[object]:
    """Start a request that the newest backend holds until its gate opens."""
    backend = loader.opened[-1]
    engine.runner(*KEY).service.saw(1, 0.01)  # too slow to be computed on the loop
    backend.gate.clear()
    ran = len(backend.inputs)
    task: asyncio.Task[object] = asyncio.create_task(
        engine.infer(request([2.0]), "1", deadline=later())
    )
    await until(lambda: len(backend.inputs) > ran)
    return task


async def test_no_request_fails_while_a_real_model_takes_on_other_options(tmp_path: Path) -> None:
    weights = np.eye(2, dtype=np.float32)
    path = onnx_models.linear(tmp_path / "m.onnx", weights)
    engine = Engine(EngineOptions(threads=2))
    source = ModelSource.of("m", "1", path, "onnx", ModelOptions())
    await engine.load(source)
    is_over = False

    async def ask(caller: int) -> int:
        answered = 0
        while not is_over:
            row = [float(caller), float(answered)]
            (answer,) = await engine.infer(request(row), "1", deadline=later())
            assert answer.data.tolist() == [row]
            answered += 1
            await asyncio.sleep(0)
        return answered

    callers = [asyncio.create_task(ask(number)) for number in range(8)]
    for size in (1, 2, 3, 4):
        options = ModelOptions(max_batch_size=size, max_delay_ms=size % 2)
        await engine.load(replace(source, options=options))
        assert engine.options_of(KEY) == options
    is_over = True
    answered = await asyncio.gather(*callers)
    assert min(answered) > 0
    (statistics,) = engine.statistics()
    assert (statistics.success.count, statistics.fail.count) == (sum(answered), 0)
    await engine.close()


async def test_the_same_options_leave_the_version_as_it_is(engine: Engine, loader: Loader) -> None:
    before = engine.runner(*KEY)
    await engine.load(replace(OLD, options=ModelOptions()))
    assert engine.runner(*KEY) is before
    assert len(loader.opened) == 1


async def test_the_new_options_reach_the_backend_and_the_old_one_is_closed(
    engine: Engine, loader: Loader
) -> None:
    await engine.load(NEW)
    await until(lambda: loader.opened[0].is_closed)
    assert [each.intra_op_threads for each in loader.asked] == [1, 2]
    assert engine.options_of(KEY) == NEW.options
    assert not loader.opened[1].is_closed


async def test_accepted_requests_finish_on_the_old_one_while_the_new_one_answers(
    engine: Engine, loader: Loader
) -> None:
    accepted = await _accepted(engine, loader)
    await engine.load(NEW)
    (answer,) = await engine.infer(request([5.0]), "1", deadline=later())
    assert answer.data.tolist() == [[10.0]]
    assert not accepted.done()
    assert not loader.opened[0].is_closed
    loader.opened[0].gate.set()
    await accepted
    await until(lambda: loader.opened[0].is_closed)
    (statistics,) = engine.statistics()
    assert statistics.success.count == 2


async def test_what_cannot_be_loaded_with_other_options_goes_on_with_the_old_ones(
    engine: Engine, loader: Loader
) -> None:
    loader.error = Corrupt("broken meanwhile")
    with pytest.raises(Corrupt):
        await engine.load(NEW)
    assert engine.options_of(KEY) == OLD.options
    (answer,) = await engine.infer(request([1.0]), "1", deadline=later())
    assert answer.data.tolist() == [[2.0]]


async def test_loads_with_different_options_follow_each_other_and_the_last_wins(
    engine: Engine,
) -> None:
    sources = [replace(OLD, options=ModelOptions(max_queue=n)) for n in (1, 2, 3)]
    await asyncio.gather(*(engine.load(source) for source in sources))
    assert engine.options_of(KEY) == ModelOptions(max_queue=3)


async def test_no_third_copy_is_opened_while_the_first_drains(
    engine: Engine, loader: Loader
) -> None:
    accepted = await _accepted(engine, loader)
    await engine.load(NEW)
    third = asyncio.create_task(engine.load(OLD))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(loader.opened) == 2
    loader.opened[0].gate.set()
    await asyncio.gather(accepted, third)
    assert loader.most_open == 2


async def test_unloading_waits_for_what_an_earlier_copy_still_computes(
    engine: Engine, loader: Loader
) -> None:
    accepted = await _accepted(engine, loader)
    await engine.load(NEW)
    unloading = asyncio.create_task(engine.unload(*KEY))
    await until(lambda: loader.opened[1].is_closed)
    assert not unloading.done()
    with pytest.raises(NotFound):
        engine.runner(*KEY)
    loader.opened[0].gate.set()
    await asyncio.gather(accepted, unloading)
    assert loader.opened[0].is_closed


async def test_an_unload_that_nobody_waits_for_any_more_goes_on(
    engine: Engine, loader: Loader
) -> None:
    accepted = await _accepted(engine, loader)
    unloading = asyncio.create_task(engine.unload(*KEY))
    await until(lambda: engine.loaded == ())
    unloading.cancel()
    await asyncio.wait([unloading])
    loader.opened[0].gate.set()
    await accepted
    await until(lambda: loader.opened[0].is_closed)


async def test_closing_finishes_what_an_earlier_copy_still_computes(loader: Loader) -> None:
    engine = Engine(EngineOptions(threads=2), {"gate": loader})
    await engine.load(OLD)
    accepted = await _accepted(engine, loader)
    await engine.load(NEW)
    closing = asyncio.create_task(engine.close())
    await until(lambda: loader.opened[1].is_closed)
    assert not closing.done()
    loader.opened[0].gate.set()
    await asyncio.gather(accepted, closing)
    assert all(backend.is_closed for backend in loader.opened)
