"""The forwarder's way to the runtime of its node: calls, loads, and what it leaves alone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from cluster.home import Home
from cluster.registry import EmbeddedRegistry
from edge_runtime.engine import ModelOptions, ModelSource
from edge_runtime.errors import Unavailable
from edge_runtime.packages import Incoming
from edge_runtime.protocol.service import Limits
from policies.routing.types import SLACKS
from serve_apps.edge_forwarder import RuntimeOfNode
from serve_apps.model_sync import ModelSync
from serve_apps.wire import Call, decode_reply, encode_call, reported_load
from tests.edge_process import EdgeProcess
from tests.serve_apps.registered import mlp_request, register, serve

DEFAULTS = ModelOptions()
MLP = ("mlp", "1")


@pytest.fixture(scope="module")
def process(
    tmp_path_factory: pytest.TempPathFactory, models: Mapping[str, ModelSource]
) -> Iterator[EdgeProcess]:
    """A runtime that has one model of its own, put there by hand."""
    with EdgeProcess(tmp_path_factory.mktemp("edge") / "home") as made:
        made.install(models["add_sub"])
        made.start()
        yield made
        assert made.process is not None
        if made.process.poll() is None:
            made.process.send_signal(signal.SIGCONT)
            assert made.stop() == 0


@pytest.fixture
async def runtime(process: EdgeProcess) -> AsyncIterator[RuntimeOfNode]:
    made = RuntimeOfNode(Home(process.home).edge_run, Limits(), DEFAULTS)
    await made.refresh()
    yield made
    for model, version in made.loaded:
        await made.unload(model, version)
    await made.close()


@pytest.fixture
def sync(
    runtime: RuntimeOfNode, registry: EmbeddedRegistry, models: Mapping[str, ModelSource]
) -> ModelSync:
    register(registry, models["mlp"])
    return ModelSync(runtime, registry, "edge", DEFAULTS, retry_s=0.0)


def call(version: str = "1", slack_s: float = 20.0) -> Call:
    return encode_call(mlp_request(), version, slack_s, 0, "")


async def test_what_the_table_places_on_the_edge_is_on_the_node_s_disk_and_answers(
    sync: ModelSync, runtime: RuntimeOfNode, registry: EmbeddedRegistry, process: EdgeProcess
) -> None:
    serve(registry, "mlp", "1", "edge")
    await sync.step()
    assert runtime.loaded == (MLP,)
    assert (process.home / "edge" / "models" / "mlp" / "1" / "package.json").exists()
    reply = await runtime.forward(call())
    found = decode_reply(reply)
    (scores,) = found.outputs
    assert (found.rung, found.age_s) == ("cpu-fp32", 0.0)
    assert scores.shape == (1, 3)
    assert np.isfinite(scores.data).all()
    load = reported_load(reply)
    assert load is not None
    assert load.idle_s < 20.0  # of the box after this answer, not when it was asked how it is
    assert len(load.ahead_s) == len(SLACKS)
    assert reply.alone_s > 0.0
    (mlp,) = (s for s in await runtime.statistics() if s.name == "mlp")
    assert mlp.success.count == 1


async def test_what_the_table_drops_leaves_the_disk_and_what_was_put_there_by_hand_stays(
    sync: ModelSync, runtime: RuntimeOfNode, registry: EmbeddedRegistry, process: EdgeProcess
) -> None:
    serve(registry, "mlp", "1", "edge")
    await sync.step()
    registry.stop_serving("mlp", "1", actor="tests")
    await sync.step()
    assert runtime.loaded == ()
    assert not (process.home / "edge" / "models" / "mlp").exists()
    assert ("add_sub", "1") in runtime.loads
    await runtime.unload("add_sub", "1")
    assert ("add_sub", "1") in runtime.loads


async def test_other_options_replace_those_of_a_version_that_is_loaded(
    sync: ModelSync, runtime: RuntimeOfNode, registry: EmbeddedRegistry
) -> None:
    serve(registry, "mlp", "1", "edge")
    await sync.step()
    serve(registry, "mlp", "1", "edge", max_batch_size=3, cache_ttl_ms=50.0)
    await sync.step()
    assert runtime.options_of(MLP) == ModelOptions(max_batch_size=3, cache_ttl_ms=50.0)
    assert decode_reply(await runtime.forward(call())).outputs


async def test_an_answer_from_the_runtime_s_memory_says_so(
    sync: ModelSync, runtime: RuntimeOfNode, registry: EmbeddedRegistry
) -> None:
    serve(registry, "mlp", "1", "edge", cache_ttl_ms=60_000.0)
    await sync.step()
    first = decode_reply(await runtime.forward(call()))
    await asyncio.sleep(0.01)
    again = decode_reply(await runtime.forward(call()))
    assert (first.rung, again.rung) == ("cpu-fp32", "cache")
    assert again.age_s >= 0.01


async def test_a_refusal_of_the_runtime_comes_back_as_it_was(runtime: RuntimeOfNode) -> None:
    reply = await runtime.forward(call("7"))
    assert reply.error is not None
    assert reply.error[0] == "not_found"
    late = await runtime.forward(call(slack_s=0.0))
    assert late.error is not None
    assert late.error[0] in ("deadline_exceeded", "not_found")


async def test_a_call_that_is_given_up_does_not_stay_in_the_runtime(
    runtime: RuntimeOfNode,
    process: EdgeProcess,
    models: Mapping[str, ModelSource],
) -> None:
    slow = models["slow"]
    await runtime.load(slow)
    steps = np.array([200_000], np.int64)
    request = mlp_request()
    tensor = type(request.inputs[0])("steps", "INT64", steps)
    packed = encode_call(type(request)("slow", None, (tensor,)), "1", 60.0, 0)
    asking = asyncio.create_task(runtime.forward(packed))
    while process.status()["in_progress"] == 0:  # noqa: ASYNC110 (another process)
        await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    while process.status()["in_progress"]:  # noqa: ASYNC110 (another process)
        await asyncio.sleep(0.05)


async def test_a_runtime_that_is_away_sends_the_request_elsewhere_and_is_found_again(
    sync: ModelSync, runtime: RuntimeOfNode, registry: EmbeddedRegistry, process: EdgeProcess
) -> None:
    serve(registry, "mlp", "1", "edge")
    await sync.step()
    process.stop(signal.SIGKILL)
    reply = await runtime.forward(call())
    assert reply.error is not None
    with pytest.raises(Unavailable):
        decode_reply(reply)
    with pytest.raises(Unavailable):
        await runtime.refresh()
    process.start()
    await runtime.refresh()
    assert runtime.loaded == (MLP,)  # from its own disk
    while (await runtime.forward(call())).error is not None:  # noqa: ASYNC110 (as above)
        await asyncio.sleep(0.05)


async def test_a_damaged_file_is_refused_before_it_is_installed(
    runtime: RuntimeOfNode, models: Mapping[str, ModelSource], process: EdgeProcess
) -> None:
    mlp = models["mlp"]
    with pytest.raises(Exception, match="SHA-256"):
        process.packages.install(
            "mlp",
            "9",
            [Incoming("onnx", Path(mlp.variants[0].path), digest="0" * 64)],
            installed_at=0.0,
        )
    assert not (process.home / "edge" / "models" / "mlp" / "9").exists()
