"""A target that is up but fails is left alone for a while, and comes back request by request."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cluster.registry import EmbeddedRegistry
from cluster.settings import EjectionSettings
from edge_runtime.engine import ModelOptions
from edge_runtime.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    PrimeSparkError,
    Unavailable,
)
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.gate import Gate
from serve_apps.gateway.catalogue import Catalogue
from serve_apps.gateway.metrics import GatewayCollector
from serve_apps.gateway.overview import target_overview
from serve_apps.gateway.service import GatewayService
from tests.serve_apps.gateway.place import Place, until
from tests.serve_apps.gateway.test_dispatch import Gateway

SETTINGS = EjectionSettings()
CONSECUTIVE, BASE_S = SETTINGS.consecutive, SETTINGS.base_s
BROKEN = Unavailable("closing", retry_after_s=1.0)


@pytest.fixture
def cloud() -> Place:
    return Place()


@pytest.fixture
def edge() -> Place:
    return Place()


@pytest.fixture
async def gateway(cloud: Place, edge: Place) -> Gateway:
    made = Gateway({"cloud": cloud, "edge/lab": edge}, ejection=SETTINGS.rules())
    await made.table.probe()
    return made


async def _fail(gateway: Gateway, place: Place, times: int = CONSECUTIVE) -> None:
    place.refuse(BROKEN)
    for _ in range(times):
        assert (await gateway.send()).reason == "failover"


async def _wait(gateway: Gateway, seconds: float) -> None:
    gateway.clock.advance(seconds)
    await gateway.table.probe()


async def test_a_target_that_fails_again_and_again_is_not_tried_first_any_more(
    gateway: Gateway, cloud: Place
) -> None:
    await _fail(gateway, cloud)
    assert (await gateway.send()).target == "edge/lab"
    assert len(cloud.calls) == CONSECUTIVE
    newest = gateway.log.read({"limit": "1"})["decisions"][0]
    assert newest["attempt"] == 1
    assert newest["considered"][0]["ruled_out"] == "ejected"


@pytest.mark.parametrize("error", [BROKEN, PrimeSparkError("failed unexpectedly")])
async def test_a_target_that_breaks_down_over_requests_is_ejected(
    gateway: Gateway, cloud: Place, error: PrimeSparkError
) -> None:
    cloud.refuse(error)
    await asyncio.gather(*(gateway.send() for _ in range(CONSECUTIVE)), return_exceptions=True)
    assert gateway.table.ejections.now() == {"cloud"}


@pytest.mark.parametrize(
    "refusal",
    [
        InvalidInput("no such input"),
        NotFound("unloaded"),
        Overloaded("full", retry_after_s=1.0),
        DeadlineExceeded("late"),
    ],
)
async def test_what_is_no_fault_of_the_target_ejects_nobody(
    gateway: Gateway, cloud: Place, refusal: PrimeSparkError
) -> None:
    cloud.refuse(refusal)
    sent = [gateway.send() for _ in range(3 * CONSECUTIVE)]
    await asyncio.gather(*sent, return_exceptions=True)
    assert len(cloud.calls) == 3 * CONSECUTIVE
    assert not gateway.table.ejections.now()


async def test_callers_who_give_up_eject_nobody(gateway: Gateway, cloud: Place) -> None:
    cloud.hang()
    tasks = [gateway.send() for _ in range(3 * CONSECUTIVE)]
    await until(lambda: cloud.running == len(tasks))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not gateway.table.ejections.now()


async def test_a_target_whose_calls_fail_while_its_probes_do_not_is_ejected(
    gateway: Gateway, cloud: Place
) -> None:
    cloud.fails_next = 1000
    for _ in range(2 * CONSECUTIVE):
        await gateway.send()
        await gateway.table.probe()  # which finds it up
    assert len(cloud.calls) == CONSECUTIVE
    assert gateway.table.ejections.now() == {"cloud"}


async def test_an_ejected_target_serves_those_who_can_go_nowhere_else(
    gateway: Gateway, cloud: Place
) -> None:
    await _fail(gateway, cloud)
    cloud.refusal = None
    found = await gateway.send(tier="cloud")
    assert (found.target, found.reason) == ("cloud", "last_resort")


async def test_a_cheap_tier_that_is_ejected_is_no_place_to_save_money_at(
    gateway: Gateway, cloud: Place
) -> None:
    cheap = frozenset({"cloud"})
    assert (await gateway.send(prefer=cheap)).target == "cloud"
    await _fail(gateway, cloud)
    assert (await gateway.send(prefer=cheap)).target == "edge/lab"


async def test_the_last_target_is_never_ejected(gateway: Gateway, cloud: Place) -> None:
    gateway.table["edge/lab"].lose("for the test")  # type: ignore[union-attr]
    cloud.refuse(BROKEN)
    for _ in range(3 * CONSECUTIVE):
        with pytest.raises(Unavailable):
            await gateway.send()
    assert not gateway.table.ejections.now()


async def test_an_ejected_target_is_back_when_the_others_go_down(
    gateway: Gateway, cloud: Place
) -> None:
    await _fail(gateway, cloud)
    gateway.table["edge/lab"].lose("for the test")  # type: ignore[union-attr]
    cloud.refusal = None
    found = await gateway.send()
    assert (found.target, found.reason) == ("cloud", "only_candidate")


async def test_a_request_that_falls_with_the_last_other_target_brings_the_ejected_one_back(
    gateway: Gateway, cloud: Place, edge: Place
) -> None:
    await _fail(gateway, cloud)
    cloud.refusal = None
    edge.hang()
    task = gateway.send()
    await until(lambda: edge.running == 1)
    gateway.table["edge/lab"].lose("for the test")  # type: ignore[union-attr]
    assert (await task).target == "cloud"
    assert (await gateway.send()).reason == "only_candidate"


async def test_of_many_requests_at_once_one_tries_a_target_that_comes_back(
    gateway: Gateway, cloud: Place
) -> None:
    await _fail(gateway, cloud)
    cloud.refusal = None
    await _wait(gateway, BASE_S)
    cloud.hang()
    tasks = [gateway.send() for _ in range(10)]
    await until(lambda: sum(task.done() for task in tasks) == 9)
    assert cloud.running == 1
    cloud.recover()
    found = await asyncio.gather(*tasks)
    assert [each.target for each in found].count("cloud") == 1
    for _ in range(10):
        assert (await gateway.send()).target == "cloud"


async def test_a_target_that_fails_its_trial_is_left_alone_for_longer(
    gateway: Gateway, cloud: Place
) -> None:
    await _fail(gateway, cloud)
    await _wait(gateway, BASE_S)
    assert (await gateway.send()).reason == "failover"
    await _wait(gateway, BASE_S)
    assert (await gateway.send()).reason != "failover"
    assert len(cloud.calls) == CONSECUTIVE + 1


async def test_metrics_and_the_list_of_targets_show_who_is_ejected(
    gateway: Gateway, cloud: Place
) -> None:
    registry = CollectorRegistry()
    registry.register(GatewayCollector(gateway.log, gateway.table, ByteBudget(1), Gate()))
    overview = target_overview(gateway.table)

    def shown() -> tuple[float | None, list[str]]:
        name = "prime_spark_gateway_target_ejected"
        states = [target["state"] for target in overview({})["targets"]]
        return registry.get_sample_value(name, {"target": "cloud"}), states

    assert shown() == (0.0, ["up", "up"])
    await _fail(gateway, cloud)
    assert shown() == (1.0, ["ejected", "up"])
    gateway.clock.advance(BASE_S)  # nobody asks meanwhile
    assert shown() == (0.0, ["up", "up"])


async def test_health_says_who_is_ejected(gateway: Gateway, cloud: Place, tmp_path: Path) -> None:
    registry = EmbeddedRegistry(tmp_path / "registry")
    catalogue = Catalogue(registry, ModelOptions())
    await catalogue.refresh()
    service = GatewayService(catalogue, gateway.table, gateway.dispatcher, registry, "1.2.3")
    assert service.health().status == "ready"
    await _fail(gateway, cloud)
    health = service.health()
    assert health.status == "degraded"
    assert health.reasons == ("target cloud is left alone for a while: it fails",)
    registry.close()


async def test_switched_off_nobody_is_ejected(cloud: Place, edge: Place) -> None:
    off = EjectionSettings(enabled=False).rules()
    gateway = Gateway({"cloud": cloud, "edge/lab": edge}, ejection=off)
    await gateway.table.probe()
    await _fail(gateway, cloud, 3 * CONSECUTIVE)
    assert not gateway.table.ejections.now()
