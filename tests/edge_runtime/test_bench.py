"""What `edge bench` measures, against a runtime on the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_runtime.app import EdgeRuntime
from edge_runtime.bench import WARM_UP, bench, sample_request
from edge_runtime.errors import NotFound, Unavailable
from edge_runtime.protocol.types import InferRequest
from tests.edge_runtime.engine.gate import until
from tests.edge_runtime.in_process import Box


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    made.install("m")
    return made


@pytest.fixture
async def running(box: Box) -> AsyncIterator[EdgeRuntime]:
    async with box.running() as runtime:
        yield runtime


async def sample(box: Box, model: str = "m", version: str | None = None) -> InferRequest:
    return await asyncio.to_thread(sample_request, box.config.places.socket, model, version)


async def test_it_counts_answers_and_says_which_rung_gave_them(
    box: Box, running: EdgeRuntime
) -> None:
    parts: list[float] = []
    socket = box.config.places.grpc_socket
    found = await bench(socket, await sample(box), clients=3, seconds=0.3, progress=parts.append)
    assert found.clients == 3
    assert (found.failures, found.errors) == (0, {})
    assert found.rungs == {"cpu-fp32": found.answers}
    answered = running.engine.runner("m", "1").stats.success.count - WARM_UP
    assert found.answers == answered > 3
    assert 0 < found.p50_ms <= found.p90_ms <= found.p99_ms
    assert found.per_s <= found.answers / 0.3
    assert found.per_s * found.p50_ms / 1e3 < 2 * found.clients
    assert 0 <= parts[0] < parts[-1] < 1


async def test_requests_that_fail_are_counted_by_their_code(running: EdgeRuntime, box: Box) -> None:
    request = await sample(box, version="1")

    async def drain_soon() -> None:
        await until(lambda: running.engine.runner("m", "1").stats.success.count > 2 * WARM_UP)
        async with box.local() as client:
            assert (await client.post("/v2/prime-spark/drain")).status_code == 200

    draining = asyncio.create_task(drain_soon())
    found = await bench(box.config.places.grpc_socket, request, clients=2, seconds=2.0)
    await draining
    assert found.answers > 0
    assert found.errors == {"unavailable": found.failures}
    assert found.failures > 0
    with pytest.raises(Unavailable):  # not even the first are answered
        await bench(box.config.places.grpc_socket, request, clients=2, seconds=0.1)


@pytest.mark.usefixtures("running")
async def test_a_model_that_is_not_there_is_said_so(box: Box) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await sample(box, "nobody")


async def test_without_a_runtime_it_says_so(box: Box) -> None:
    with pytest.raises(Unavailable, match="no edge runtime runs here"):
        await sample(box)
