"""Canaries get their share, shadows copies that nobody waits for; the engine hears of neither."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.registry import EmbeddedRegistry
from edge_runtime.engine import Engine, ModelSource
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.types import InferRequest
from policies.cost import Budget
from serve_apps.gateway.service import GatewayService
from serve_apps.gateway.shadows import UNDER_WAY
from tests.edge_runtime.engine.gate import until
from tests.serve_apps.gateway.test_service import Gateway, _context
from tests.serve_apps.registered import mlp_request, register, serve


@pytest.fixture
async def gateway(
    registry: EmbeddedRegistry,
    engine: Engine,
    models: Mapping[str, ModelSource],
    tmp_path: Path,
) -> AsyncIterator[Gateway]:
    for version in ("1", "2", "3"):
        register(registry, models["mlp"], version)
    made = Gateway(registry, engine, tmp_path, Budget("all", 1e6, "month", "degrade"))
    yield made
    assert isinstance(made.service, GatewayService)
    await made.service.shadows.close()


def numbered(number: int, version: str | None = None) -> InferRequest:
    return replace(mlp_request(version=version), id=f"request-{number}")


async def versions_of(gateway: Gateway, count: int, session: str = "") -> Counter[str]:
    context = replace(_context(), session=session)
    found = [await gateway.service.infer(numbered(n), context) for n in range(count)]
    return Counter(each.response.version or "" for each in found)


async def test_a_canary_gets_its_share_and_the_same_requests_each_time(gateway: Gateway) -> None:
    serve(gateway.registry, "mlp", "1")
    serve(gateway.registry, "mlp", "2", canary_percent=25.0)
    await gateway.follow()
    first = await versions_of(gateway, 200)
    assert 25 < first["2"] < 75
    assert first["1"] == 200 - first["2"]
    assert await versions_of(gateway, 200) == first


async def test_the_newest_version_is_the_default_unless_it_is_a_canary(gateway: Gateway) -> None:
    for version in ("1", "2"):
        serve(gateway.registry, "mlp", version)
    serve(gateway.registry, "mlp", "3", canary_percent=10.0)
    await gateway.follow()
    assert set(await versions_of(gateway, 100)) == {"2", "3"}


async def test_a_session_meets_one_version(gateway: Gateway) -> None:
    serve(gateway.registry, "mlp", "1")
    serve(gateway.registry, "mlp", "2", canary_percent=50.0)
    await gateway.follow()
    found = [await versions_of(gateway, 5, session=f"session-{n}") for n in range(20)]
    assert all(len(each) == 1 for each in found)
    assert len({next(iter(each)) for each in found}) == 2


async def test_who_names_a_version_gets_it(gateway: Gateway) -> None:
    serve(gateway.registry, "mlp", "1")
    serve(gateway.registry, "mlp", "2", canary_percent=100.0)
    await gateway.follow()
    found = await gateway.service.infer(numbered(1, "1"), _context())
    assert found.response.version == "1"


async def test_a_growing_share_loads_nothing_anew(gateway: Gateway) -> None:
    serve(gateway.registry, "mlp", "2", canary_percent=10.0)
    await gateway.follow()
    runner = gateway.engine.runner("mlp", "2")
    serve(gateway.registry, "mlp", "2", canary_percent=90.0)
    await gateway.follow()
    assert gateway.engine.runner("mlp", "2") is runner


async def test_a_shadow_gets_copies_and_its_answer_is_compared(gateway: Gateway) -> None:
    serve(gateway.registry, "mlp", "1")
    serve(gateway.registry, "mlp", "2", shadow_percent=100.0)
    await gateway.follow()
    assert await versions_of(gateway, 10) == {"1": 10}
    shadows = gateway.service.shadows  # type: ignore[attr-defined]
    await until(lambda: shadows.counts.total() == 10)
    assert shadows.counts == {("mlp", "2", "same"): 10}
    copies = [d for d in gateway.log.read({})["decisions"] if d["version"] == "2"]
    assert {copy["id"] for copy in copies} == {f"shadow:request-{n}" for n in range(10)}


async def test_no_copies_are_sent_for_money_that_is_spent(gateway: Gateway) -> None:
    serve(gateway.registry, "mlp", "1")
    serve(gateway.registry, "mlp", "2", shadow_percent=100.0)
    await gateway.follow()
    gateway.budgets.spending.charge("default", "mlp", 1e6, time.time())
    assert await versions_of(gateway, 10) == {"1": 10}
    assert gateway.service.shadows.counts.total() == 0  # type: ignore[attr-defined]
    assert {d["version"] for d in gateway.log.read({})["decisions"]} == {"1"}


async def test_a_shadow_that_fails_is_nobodys_failure(gateway: Gateway) -> None:
    serve(gateway.registry, "mlp", "1")
    serve(gateway.registry, "mlp", "2", "edge", shadow_percent=100.0)  # there is no such place
    await gateway.follow()
    assert await versions_of(gateway, 3) == {"1": 3}
    shadows = gateway.service.shadows  # type: ignore[attr-defined]
    await until(lambda: shadows.counts[("mlp", "2", "failed")] == 3)


async def test_no_more_than_a_few_copies_are_under_way(gateway: Gateway) -> None:
    serve(gateway.registry, "mlp", "1")
    serve(gateway.registry, "mlp", "2", shadow_percent=100.0)
    await gateway.follow()
    shadows = gateway.service.shadows  # type: ignore[attr-defined]
    served = gateway.catalogue.snapshot.shadows("mlp", "1", "any")
    for number in range(UNDER_WAY + 5):  # none begins before this has ended
        shadows.send(numbered(number), served, _context(), ())
    assert shadows.counts == {("mlp", "2", "dropped"): 5}
    await shadows.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_share_that_is_none_is_refused_by_name(gateway: Gateway) -> None:
    with pytest.raises(InvalidInput, match="canary_percent must be a number from 0 to 100"):
        serve(gateway.registry, "mlp", "2", canary_percent=101.0)
    await gateway.follow()
    with pytest.raises(InvalidInput, match="shadow_percent"):
        await gateway.load("mlp", version="2", shadow_percent="many")
