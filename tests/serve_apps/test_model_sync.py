"""An engine follows the serving table: loads, replaces, unloads, and goes on when some fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from cluster.registry import ArtifactFile, EmbeddedRegistry, ModelCard
from edge_runtime.backends.base import Backend, BackendOptions
from edge_runtime.backends.onnx import load_onnx
from edge_runtime.engine import Engine, EngineOptions, ModelOptions, ModelSource
from edge_runtime.errors import Unsupported
from serve_apps.model_sync import ModelSync, runnable_artifact
from serve_apps.wire import Failure
from tests.serve_apps.registered import UNKNOWN, mlp_request, register, serve

DEFAULTS = ModelOptions(max_batch_size=4)
MLP = ("mlp", "1")


@pytest.fixture
def sync(engine: Engine, registry: EmbeddedRegistry) -> ModelSync:
    return ModelSync(engine, registry, "colocated", DEFAULTS, retry_s=0.0)


@pytest.fixture
def mlp(registry: EmbeddedRegistry, models: Mapping[str, ModelSource]) -> None:
    register(registry, models["mlp"])


@asynccontextmanager
async def _running(sync: ModelSync) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(sync.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
        await asyncio.sleep(0.01)


def _later() -> float:
    return asyncio.get_running_loop().time() + 30.0


@pytest.mark.usefixtures("mlp")
async def test_what_the_table_places_here_is_loaded_and_what_it_drops_is_unloaded(
    sync: ModelSync, engine: Engine, registry: EmbeddedRegistry
) -> None:
    await sync.step()
    assert [*engine.loaded] == []
    generation = serve(registry, "mlp")
    await sync.step()
    assert [*engine.loaded] == [MLP]
    assert sync.generation == generation
    assert engine.options_of(MLP) == DEFAULTS
    generation = registry.stop_serving("mlp", "1", actor="tests")
    await sync.step()
    assert [*engine.loaded] == []
    assert sync.generation == generation


@pytest.mark.usefixtures("mlp")
async def test_what_is_placed_elsewhere_is_not_loaded_and_leaves_when_it_moves(
    sync: ModelSync, engine: Engine, registry: EmbeddedRegistry
) -> None:
    serve(registry, "mlp", "1", "cloud", "edge")
    await sync.step()
    assert [*engine.loaded] == []
    serve(registry, "mlp", "1", "cloud", "colocated")
    await sync.step()
    assert [*engine.loaded] == [MLP]
    serve(registry, "mlp", "1", "edge")
    await sync.step()
    assert [*engine.loaded] == []


@pytest.mark.usefixtures("mlp")
async def test_served_again_with_other_options_a_version_takes_them_on_under_traffic(
    sync: ModelSync, engine: Engine, registry: EmbeddedRegistry
) -> None:
    serve(registry, "mlp", "1", max_queue=10)
    await sync.step()
    is_over = False

    async def ask() -> int:
        answered = 0
        while not is_over:
            await engine.infer(mlp_request(), "1", deadline=_later())
            answered += 1
            await asyncio.sleep(0)
        return answered

    callers = [asyncio.create_task(ask()) for _ in range(4)]
    for size in (2, 3):
        serve(registry, "mlp", "1", max_batch_size=size)
        await sync.step()
        assert engine.options_of(MLP) == ModelOptions(max_batch_size=size)
    is_over = True
    assert min(await asyncio.gather(*callers)) > 0


@pytest.mark.usefixtures("mlp")
async def test_a_change_that_does_not_touch_the_options_leaves_the_model_alone(
    sync: ModelSync, engine: Engine, registry: EmbeddedRegistry
) -> None:
    serve(registry, "mlp")
    await sync.step()
    before = engine.runner(*MLP)
    serve(registry, "mlp", "1", "cloud", "colocated", max_batch_size=4.0)
    await sync.step()
    assert engine.runner(*MLP) is before


@pytest.mark.usefixtures("mlp")
async def test_options_that_make_no_sense_leave_the_old_ones_and_are_reported(
    sync: ModelSync, engine: Engine, registry: EmbeddedRegistry
) -> None:
    serve(registry, "mlp")
    await sync.step()
    serve(registry, "mlp", "1", max_batch_size=0)
    await sync.step()
    assert engine.options_of(MLP) == DEFAULTS
    assert sync.failures[MLP].code == "invalid_input"
    serve(registry, "mlp")
    await sync.step()
    assert sync.failures == {}


@pytest.mark.usefixtures("mlp")
async def test_a_model_that_cannot_be_loaded_is_remembered_and_the_others_go_on(
    sync: ModelSync,
    engine: Engine,
    registry: EmbeddedRegistry,
    models: Mapping[str, ModelSource],
) -> None:
    register(registry, models["broken"])
    serve(registry, "broken")
    serve(registry, "mlp")
    await sync.step()
    assert [*engine.loaded] == [MLP]
    assert [*sync.failures] == [("broken", "1")]
    assert sync.failures["broken", "1"].code == "corrupt"
    registry.stop_serving("broken", "1", actor="tests")
    await sync.step()
    assert sync.failures == {}


@pytest.mark.usefixtures("mlp")
async def test_a_failed_load_is_tried_again_and_forgotten_when_it_succeeds(
    sync: ModelSync, engine: Engine, registry: EmbeddedRegistry
) -> None:
    path = registry.artifact_path(registry.get("mlp", "1").artifacts[0])
    hidden = path.with_name("hidden")
    path.rename(hidden)
    serve(registry, "mlp")
    await sync.step()
    assert sync.failures[MLP].code == "corrupt"
    hidden.rename(path)
    await sync.step()
    assert [*engine.loaded] == [MLP]
    assert sync.failures == {}


@pytest.mark.usefixtures("mlp")
async def test_a_failed_load_is_not_tried_again_before_its_time(
    engine: Engine, registry: EmbeddedRegistry
) -> None:
    sync = ModelSync(engine, registry, "colocated", DEFAULTS, retry_s=3600.0)
    path = registry.artifact_path(registry.get("mlp", "1").artifacts[0])
    hidden = path.with_name("hidden")
    path.rename(hidden)
    serve(registry, "mlp")
    await sync.step()
    hidden.rename(path)
    await sync.step()
    assert [*engine.loaded] == []


async def test_a_model_whose_loading_crashes_does_not_stop_the_others(
    registry: EmbeddedRegistry,
    models: Mapping[str, ModelSource],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def load(artifact: Path, options: BackendOptions) -> Backend:
        backend = load_onnx(artifact, options)
        if backend.signature.inputs[0].name == "x":
            return backend
        raise MemoryError("no room")

    engine = Engine(EngineOptions(threads=1), {"onnx": load})
    sync = ModelSync(engine, registry, "colocated", DEFAULTS, retry_s=0.0)
    for name in ("mlp", "add_sub"):
        register(registry, models[name])
        serve(registry, name)
    with caplog.at_level(logging.ERROR, "serve_apps.model_sync"):
        await sync.step()
        await sync.step()
    assert [*engine.loaded] == [MLP]
    assert sync.failures == {("add_sub", "1"): Failure("internal", "MemoryError: no room")}
    assert [record.exc_info is not None for record in caplog.records] == [True]
    await engine.close()


async def test_a_version_without_an_artifact_for_processors_says_so(
    registry: EmbeddedRegistry, tmp_path: Path, sync: ModelSync
) -> None:
    path = tmp_path / "model.hef"
    path.write_bytes(b"hef")
    files = [ArtifactFile("hef", path)]
    kept = registry.register(
        "m", "1", signature=UNKNOWN, artifacts=files, card=ModelCard(), actor="tests"
    )
    with pytest.raises(Unsupported, match="m:1"):
        runnable_artifact(kept)
    serve(registry, "m")
    await sync.step()
    assert sync.failures["m", "1"].code == "unsupported"


@pytest.mark.usefixtures("mlp")
async def test_polling_goes_on_while_the_registry_is_unreadable_and_follows_it_afterwards(
    sync: ModelSync,
    engine: Engine,
    registry: EmbeddedRegistry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    serve(registry, "mlp")
    caplog.set_level(logging.ERROR, "serve_apps.model_sync")
    folder, away = tmp_path / "registry", tmp_path / "away"

    def is_noticed() -> bool:
        registry.close()  # what it holds open would still be read
        return bool(caplog.records)

    async with _running(sync) as task:
        await _until(lambda: engine.loaded == (MLP,))
        folder.rename(away)
        await _until(is_noticed)
        (answer,) = await engine.infer(mlp_request(), "1", deadline=_later())
        assert np.isfinite(answer.data).all()
        away.rename(folder)
        registry.stop_serving("mlp", "1", actor="tests")
        await _until(lambda: engine.loaded == ())
        assert not task.done()
    assert len(caplog.records) == 1
