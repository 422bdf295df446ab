from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.backends.base import Backend, BackendOptions
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource, model_options
from edge_runtime.errors import (
    Corrupt,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from tests.edge_runtime import onnx_models
from tests.edge_runtime.engine.gate import GateBackend, later, request, until

ANYWHERE = Path("model.gate")
SOURCE = ModelSource.of("m", "1", ANYWHERE, "gate", ModelOptions())


class Loader:
    """Opens gate backends; waits for its gate, and fails while there is an error to raise."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.opened: list[GateBackend] = []

    def __call__(self, artifact: Path, options: BackendOptions) -> Backend:
        self.calls += 1
        self.gate.wait()
        if self.error is not None:
            raise self.error
        self.opened.append(GateBackend())
        return self.opened[-1]


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
async def engine(loader: Loader) -> AsyncIterator[Engine]:
    made = Engine(EngineOptions(threads=2, drain_s=5.0), {"gate": loader})
    yield made
    loader.gate.set()
    for backend in loader.opened:
        backend.gate.set()
    await made.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert all(backend.is_closed for backend in loader.opened)


async def _loading(engine: Engine, loader: Loader) -> asyncio.Task[None]:
    """Begin to load a model; it goes on until the loader's gate opens."""
    loader.gate.clear()
    task = asyncio.create_task(engine.load(SOURCE))
    await until(lambda: loader.calls == 1)
    return task


async def test_a_real_model_is_loaded_computed_and_unloaded(tmp_path: Path) -> None:
    weights = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    path = onnx_models.linear(tmp_path / "m.onnx", weights)
    engine = Engine(EngineOptions(threads=1))
    await engine.load(ModelSource.of("m", "1", path, "onnx", ModelOptions()))
    assert [*engine.loaded] == [("m", "1")]
    (answer,) = await engine.infer(request([1.0, 1.0]), "1", deadline=later())
    assert (answer.name, answer.datatype, answer.data.tolist()) == ("y", "FP32", [[4.0, 6.0]])
    assert [s.success.count for s in engine.statistics()] == [1]
    await engine.unload("m", "1")
    assert engine.loaded == ()
    with pytest.raises(NotFound):
        await engine.infer(request([1.0, 1.0]), "1", deadline=later())
    await engine.close()


async def test_closing_aborts_the_warm_up_of_a_model_that_takes_minutes(tmp_path: Path) -> None:
    path = onnx_models.slow(tmp_path / "m.onnx")
    engine = Engine(EngineOptions(threads=1))
    source = ModelSource.of("m", "1", path, "onnx", ModelOptions())
    loading = asyncio.create_task(engine.load(source))
    await asyncio.sleep(0.1)  # most likely it is warming up; it must end in any case
    closing = asyncio.create_task(engine.close())
    with pytest.raises(Unavailable):
        await loading
    await closing


async def test_a_real_run_that_nobody_waits_for_gives_its_worker_back(tmp_path: Path) -> None:
    path = onnx_models.loop(tmp_path / "m.onnx")
    engine = Engine(EngineOptions(threads=1))
    await engine.load(ModelSource.of("m", "1", path, "onnx", ModelOptions(instances=1)))
    runner = engine.runner("m", "1")
    runner.service.saw(1, 0.01)
    endless = asyncio.create_task(runner.infer(request([1e9]), deadline=later()))
    await until(lambda: runner.running == 1)
    endless.cancel()
    (answer,) = await runner.infer(request([3.0]), deadline=later())
    assert answer.data.tolist() == [[3.0]]
    await engine.close()


async def test_a_loop_that_is_quick_for_zeros_never_keeps_others_waiting(tmp_path: Path) -> None:
    path = onnx_models.loop(tmp_path / "m.onnx")
    engine = Engine(EngineOptions(threads=2))
    await engine.load(ModelSource.of("m", "1", path, "onnx", ModelOptions()))
    engine.runner("m", "1").service.saw(1, 1e-5)
    loop = asyncio.get_running_loop()
    began = loop.time()
    asked = asyncio.create_task(engine.infer(request([1e9]), "1", deadline=later(0.3)))
    await asyncio.sleep(0.01)
    assert loop.time() - began < 0.3
    with pytest.raises(DeadlineExceeded):
        await asked
    await engine.close()


async def test_unloading_gives_the_memory_back(tmp_path: Path) -> None:
    weights = np.ones((4096, 4096), dtype=np.float32)  # 64 MiB
    path = onnx_models.linear(tmp_path / "m.onnx", weights)
    del weights
    engine = Engine(EngineOptions(threads=1))
    await engine.load(ModelSource.of("m", "1", path, "onnx", ModelOptions(max_batch_size=1)))
    loaded = _resident_bytes()
    await engine.unload("m", "1")
    assert loaded - _resident_bytes() > 40 * 2**20
    await engine.close()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def test_many_who_load_the_same_model_share_one_load(engine: Engine, loader: Loader) -> None:
    first = await _loading(engine, loader)
    others = [asyncio.create_task(engine.load(SOURCE)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="loading"):
        engine.runner("m", "1")
    loader.gate.set()
    await asyncio.gather(first, *others)
    await engine.load(SOURCE)
    assert loader.calls == 1


async def test_one_of_many_who_gives_up_does_not_stop_the_load(
    engine: Engine, loader: Loader
) -> None:
    first = await _loading(engine, loader)
    other = asyncio.create_task(engine.load(SOURCE))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    loader.gate.set()
    await other
    assert engine.loaded == (("m", "1"),)


async def test_a_failed_load_is_told_to_all_and_can_be_tried_again(
    engine: Engine, loader: Loader
) -> None:
    loader.error = Corrupt("broken")
    first = await _loading(engine, loader)
    other = asyncio.create_task(engine.load(SOURCE))
    await asyncio.sleep(0)
    loader.gate.set()
    found = await asyncio.gather(first, other, return_exceptions=True)
    assert [*found] == [loader.error, loader.error]
    with pytest.raises(NotFound):
        engine.runner("m", "1")
    loader.error = None
    await engine.load(SOURCE)
    assert engine.loaded == (("m", "1"),)


async def test_unloading_while_it_loads_waits_and_leaves_nothing(
    engine: Engine, loader: Loader
) -> None:
    loading = await _loading(engine, loader)
    unloading = asyncio.create_task(engine.unload("m", "1"))
    await asyncio.sleep(0)
    loader.gate.set()
    await asyncio.gather(loading, unloading)
    assert engine.loaded == ()
    assert loader.opened[0].is_closed


async def test_unloading_what_fails_to_load_is_no_error(engine: Engine, loader: Loader) -> None:
    loader.error = Corrupt("broken")
    loading = await _loading(engine, loader)
    unloading = asyncio.create_task(engine.unload("m", "1"))
    await asyncio.sleep(0)
    loader.gate.set()
    await unloading
    with pytest.raises(Corrupt):
        await loading


async def test_unloading_finishes_accepted_requests_while_a_new_one_is_not_found(
    engine: Engine, loader: Loader
) -> None:
    await engine.load(SOURCE)
    backend = loader.opened[0]
    engine.runner("m", "1").service.saw(1, 0.01)  # too slow to be computed on the loop
    backend.gate.clear()
    ran = len(backend.inputs)
    accepted = asyncio.create_task(engine.infer(request([2.0]), "1", deadline=later()))
    await until(lambda: len(backend.inputs) > ran)
    unloading = asyncio.create_task(engine.unload("m", "1"))
    await asyncio.sleep(0)
    with pytest.raises(NotFound):
        await engine.infer(request([2.0]), "1", deadline=later())
    backend.gate.set()
    assert (await accepted)[0].data.tolist() == [[4.0]]
    await unloading


async def test_an_unknown_format_says_which_are_known(engine: Engine) -> None:
    with pytest.raises(Unsupported, match="format hef cannot") as error:
        await engine.load(ModelSource.of("m", "1", ANYWHERE, "hef", ModelOptions()))
    assert error.value.hint == "this engine runs gate"
    assert engine.loaded == ()


async def test_a_model_that_crashes_in_its_warm_up_is_closed_and_not_served() -> None:
    def crash(x: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        raise RuntimeError("crash")

    backend = GateBackend(crash)
    engine = Engine(EngineOptions(threads=1), {"gate": lambda artifact, options: backend})
    with pytest.raises(RuntimeError, match="crash"):
        await engine.load(SOURCE)
    assert backend.is_closed
    assert engine.loaded == ()
    await engine.close()


async def test_closing_while_a_model_loads_tells_whoever_waits(loader: Loader) -> None:
    engine = Engine(EngineOptions(threads=1), {"gate": loader})
    loading = await _loading(engine, loader)
    closing = asyncio.create_task(engine.close())
    with pytest.raises(Unavailable, match="closed"):
        await loading
    loader.gate.set()
    await closing
    assert engine.loaded == ()


async def test_closing_unloads_all_models_at_the_same_time(loader: Loader) -> None:
    engine = Engine(EngineOptions(threads=2), {"gate": loader})
    running = []
    for version in ("1", "2"):
        await engine.load(replace(SOURCE, version=version))
        engine.runner("m", version).service.saw(1, 0.01)
        loader.opened[-1].gate.clear()
        running.append(asyncio.create_task(engine.infer(request([1.0]), version, deadline=later())))
    await until(lambda: all(r.running for r in engine.runners()))
    closing = asyncio.create_task(engine.close())
    await until(lambda: engine.loaded == ())
    assert not closing.done()
    for backend in loader.opened:
        backend.gate.set()
    await closing
    assert [task.exception() for task in running] == [None, None]


async def test_a_load_report_tells_work_waiting_and_running(engine: Engine, loader: Loader) -> None:
    await engine.load(replace(SOURCE, options=ModelOptions(instances=1)))
    for _ in range(60):
        engine.runner("m", "1").service.saw(1, 1.0)
    loader.opened[0].gate.clear()
    tasks = [
        asyncio.create_task(engine.infer(request([float(i)]), "1", deadline=later()))
        for i in range(2)
    ]
    await until(lambda: engine.runner("m", "1").queued == 1)
    report = engine.load_report()["m", "1"]
    assert (report.queued, report.running) == (1, 1)
    assert report.wait_s == pytest.approx(1.5, rel=0.01)
    assert report.service_s == pytest.approx(1.0, rel=0.01)
    assert engine.load_of(("m", "1")) == report
    assert engine.load_of(("m", "2")) is None
    loader.opened[0].gate.set()
    await asyncio.gather(*tasks)


def test_a_model_s_own_options_are_laid_over_the_defaults() -> None:
    defaults = ModelOptions(max_batch_size=4, max_delay_ms=1.0)
    found = model_options(defaults, {"max_delay_ms": 2, "max_queue": 9.0})
    assert found == ModelOptions(max_batch_size=4, max_delay_ms=2.0, max_queue=9)
    assert isinstance(found.max_queue, int)
    assert isinstance(found.max_delay_ms, float)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch", 1),
        ("max_queue", "many"),
        ("max_queue", True),
        ("max_queue", 1.5),
        ("max_queue", float("inf")),
        ("max_queue", float("nan")),
        ("max_delay_ms", float("nan")),
        ("max_delay_ms", -1),
        ("max_batch_size", 0),
        ("intra_op_threads", 0),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=name):
        model_options(ModelOptions(), {name: value})
