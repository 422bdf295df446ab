"""The asyncio client: calls side by side, and cancelling one ends its connection."""

from __future__ import annotations

import asyncio

import pytest

from edge_runtime.entry import AsyncEntryClient
from edge_runtime.errors import Overloaded
from tests.edge_runtime.entry.conftest import Region, quick

BODY: dict[str, object] = {"inputs": []}


async def test_calls_run_side_by_side_and_errors_come_through(gateways: Region) -> None:
    near = gateways[0]
    async with AsyncEntryClient(quick(near)) as client:
        assert [seen.site for seen in await client.refresh()] == ["near", "middle", "far"]
        answers = await asyncio.gather(*(client.infer("m", BODY) for _ in range(40)))
        assert {answer.gateway for answer in answers} == {near.url}
        for gateway in gateways:
            gateway.behave(refuse=[503, {"error": "no", "code": "overloaded"}])
        with pytest.raises(Overloaded):
            await client.infer("m", BODY)
        assert client.gateways[0].is_current


async def test_cancelling_a_call_ends_it_and_leaves_the_client_well(gateways: Region) -> None:
    near, middle, far = gateways
    near.behave(hang_s=60.0)
    async with AsyncEntryClient(quick(near), at_once=1) as client:
        waiting = asyncio.create_task(client.infer("m", BODY, timeout_s=100.0))
        while not near.noted("/v2/models"):  # noqa: ASYNC110 (another process tells nobody)
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        near.behave(hang_s=0.0)
        # The only thread is free again, so the cancelled call has ended, and went nowhere else.
        assert (await client.infer("m", BODY)).gateway == near.url
    assert not middle.noted("/v2/models")
    assert not far.noted("/v2/models")
