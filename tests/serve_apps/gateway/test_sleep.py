"""A target without replicas sleeps: whoever has time waits for its start, nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace

import pytest

from cluster.registry import EmbeddedRegistry
from edge_runtime.auth import Principal
from edge_runtime.engine import ModelOptions, ModelSource
from edge_runtime.errors import DeadlineExceeded, NotFound, Overloaded, Unavailable
from edge_runtime.protocol.service import CallContext
from policies.routing.ejection import EjectionRules
from serve_apps.gateway.catalogue import Catalogue
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.dispatch import Dispatched, Dispatcher
from serve_apps.gateway.overview import target_overview
from serve_apps.gateway.service import GatewayService
from serve_apps.gateway.targets import CALLS, TargetTable
from serve_apps.wire import ReplicaReport
from tests.serve_apps.gateway.place import (
    IDLE,
    KEY,
    Clock,
    Place,
    later,
    remote,
    report,
    request,
    until,
)
from tests.serve_apps.registered import register

ANYWHERE = frozenset({"cloud", "edge"})
START_S = 8.0
SLOW = replace(IDLE, service_s=0.05, row_s=0.05)


class Gateway:
    """A dispatcher over a cloud that may sleep, and does, and the edge site lab."""

    def __init__(self, cloud: Place, edge: Place | None = None) -> None:
        self.clock = Clock()
        self.cloud = remote("cloud", cloud, self.clock, START_S)
        others = [] if edge is None else [remote("edge/lab", edge, self.clock)]
        self.table = TargetTable([self.cloud, *others], None, EjectionRules(), self.clock)
        assert self.cloud.sleep is not None
        self.sleep = self.cloud.sleep
        self.log = DecisionLog()
        self.dispatcher = Dispatcher(self.table, self.log, clock=self.clock)

    def send(self, timeout_s: float = 60.0) -> asyncio.Task[Dispatched]:
        context = CallContext(Principal("tester", frozenset()), later(timeout_s))
        return asyncio.create_task(self.dispatcher.infer(request(), "1", ANYWHERE, context))

    @property
    def shown(self) -> tuple[str, str]:
        """State and problem of the cloud, as people are told."""
        (found, *_) = target_overview(self.table, self.clock)({})["targets"]
        return found["state"], found["problem"]


@pytest.fixture
def cloud() -> Place:
    place = Place()
    place.sleep()
    return place


@pytest.fixture
async def gateway(cloud: Place) -> AsyncIterator[Gateway]:
    """One with the cloud alone; its background tasks run."""
    made = Gateway(cloud)
    async for each in _running(made):
        yield each


@pytest.fixture
async def with_edge(cloud: Place) -> AsyncIterator[Gateway]:
    async for each in _running(Gateway(cloud, Place(load=SLOW))):
        yield each


async def _running(made: Gateway) -> AsyncIterator[Gateway]:
    await made.table.probe()
    task = asyncio.create_task(made.table.run())
    yield made
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_target_without_replicas_sleeps_where_it_may_and_is_down_where_not(
    cloud: Place, gateway: Gateway
) -> None:
    assert gateway.shown == ("asleep", "no replica runs; who needs one waits about 8 s")
    assert gateway.table.asleep == {"cloud"}
    awake = remote("cloud", cloud, gateway.clock)
    await awake.probe()
    assert not awake.is_up


async def test_requests_wait_for_the_start_and_all_are_answered(
    gateway: Gateway, cloud: Place
) -> None:
    waiting = [gateway.send() for _ in range(20)]
    await until(lambda: cloud.wakes == 1 and gateway.cloud.view(KEY).outstanding == 20)
    assert gateway.shown[0] == "waking"
    assert not cloud.calls
    cloud.start()
    answers = await asyncio.gather(*waiting)
    assert [a.answer.outputs[0].data.tolist() for a in answers] == [[[2.0, 4.0]]] * 20
    assert cloud.wakes == gateway.sleep.wakes == 1
    assert gateway.sleep.waits == {"served": 20}
    assert gateway.shown == ("up", "")
    assert gateway.table.asleep == frozenset()


async def test_what_they_waited_is_no_time_that_they_have_left_nor_one_that_is_learned(
    gateway: Gateway, cloud: Place
) -> None:
    task = gateway.send(timeout_s=30.0)
    await until(lambda: cloud.wakes == 1)
    gateway.clock.advance(6.0)
    cloud.start()
    await task
    assert cloud.calls[0].slack_s == pytest.approx(24.0, abs=1.0)
    known = gateway.cloud.view(KEY)
    assert known.rtt_s < 1.0
    assert known.peak_s < 1.0
    assert gateway.sleep.waited_s == pytest.approx(6.0, abs=1.0)


async def test_a_call_that_was_in_serves_queue_when_it_fell_asleep_teaches_nothing(
    gateway: Gateway, cloud: Place
) -> None:
    cloud.start()
    await gateway.send()
    known = gateway.cloud.view(KEY)
    cloud.hold_calls()
    task = gateway.send()
    await until(lambda: len(cloud.calls) == 2)
    cloud.sleep()
    await until(lambda: gateway.shown[0] == "asleep")
    gateway.clock.advance(7.0)
    cloud.let_calls_go()
    await task
    assert gateway.cloud.view(KEY).rtt_s == known.rtt_s
    gateway.sleep.wake()
    cloud.start()
    await until(lambda: gateway.shown[0] == "up")
    assert gateway.cloud.view(KEY).errors == known.errors


async def test_who_has_no_time_is_refused_with_the_start_and_wakes_it_all_the_same(
    gateway: Gateway, cloud: Place
) -> None:
    with pytest.raises(Overloaded) as refused:
        await gateway.send(timeout_s=0.15)
    assert refused.value.retry_after_s == pytest.approx(
        START_S - 0.15, abs=0.3
    )  # less time is left here by then
    await until(lambda: cloud.wakes == 1)
    gateway.clock.advance(5.0)
    await gateway.table.probe()
    with pytest.raises(Overloaded) as refused:
        await gateway.send(timeout_s=0.15)
    assert refused.value.retry_after_s == pytest.approx(START_S - 5.15, abs=0.5)
    cloud.start()
    await until(lambda: gateway.shown[0] == "up")
    await gateway.send(timeout_s=0.15)
    assert gateway.sleep.starting_s == pytest.approx(5.0, abs=1.0)


async def test_who_is_served_elsewhere_lets_it_sleep(with_edge: Gateway, cloud: Place) -> None:
    for timeout_s in (0.15, 30.0):
        assert (await with_edge.send(timeout_s)).target == "edge/lab"
    assert with_edge.sleep.wakes == cloud.wakes == 0
    (record, *_) = with_edge.log.read({})["decisions"]
    assert {v["target"]: v["is_asleep"] for v in record["considered"]} == {
        "cloud": True,
        "edge/lab": False,
    }


async def test_the_deadline_ends_a_wait_and_the_start_goes_on(
    gateway: Gateway, cloud: Place
) -> None:
    gateway.sleep._starts.took(0.01)  # so that there is hope
    await gateway.table.probe()
    task = gateway.send(timeout_s=0.05)
    with pytest.raises(DeadlineExceeded):
        await task
    assert gateway.sleep.waits == {"late": 1}
    assert gateway.cloud.view(KEY).outstanding == 0
    assert gateway.shown[0] == "waking"
    cloud.start()
    await until(lambda: gateway.shown[0] == "up")


async def test_who_gives_up_leaves_nothing_behind(gateway: Gateway, cloud: Place) -> None:
    task = gateway.send()
    await until(lambda: cloud.wakes == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gateway.sleep.waits == {"cancelled": 1}
    assert gateway.cloud.view(KEY).outstanding == 0


async def test_no_more_wait_than_there_are_calls(gateway: Gateway, cloud: Place) -> None:
    waiting = [gateway.send() for _ in range(CALLS)]
    await until(lambda: gateway.cloud.view(KEY).outstanding == CALLS)
    with pytest.raises(Overloaded) as refused:
        await gateway.send()
    assert refused.value.details == {"reason": "queue_full"}
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 7.0
    cloud.start()
    await asyncio.gather(*waiting)


async def test_a_start_that_fails_is_asked_for_again(gateway: Gateway, cloud: Place) -> None:
    cloud.fails_to_wake = 1
    task = gateway.send()
    await until(lambda: cloud.wakes == 2)
    cloud.start()
    await task
    assert gateway.sleep.wakes == 1


async def test_who_waits_for_a_target_that_is_lost_is_told(gateway: Gateway, cloud: Place) -> None:
    task = gateway.send()
    await until(lambda: cloud.wakes == 1)
    cloud.fail()
    with pytest.raises(Unavailable):
        await task
    assert gateway.sleep.waits["lost"] == 1
    assert gateway.shown[0] == "down"


async def test_a_model_that_the_new_replica_has_not_is_said_to_be_missing(
    gateway: Gateway, cloud: Place
) -> None:
    task = gateway.send()
    await until(lambda: cloud.wakes == 1)
    cloud.comes = report(None)
    cloud.refuse(NotFound("it is not loaded"))
    cloud.start()
    with pytest.raises(Unavailable):
        await task
    with pytest.raises(Unavailable, match="model_not_loaded"):
        await gateway.send()


async def test_a_model_that_is_loaded_wakes_the_tier_that_shall_have_it(
    cloud: Place, registry: EmbeddedRegistry, models: Mapping[str, ModelSource]
) -> None:
    register(registry, models["mlp"])
    catalogue = Catalogue(registry, ModelOptions())
    await catalogue.refresh()
    made = Gateway(cloud)
    service = GatewayService(catalogue, made.table, made.dispatcher, registry, "1")
    context = CallContext(Principal("tester", frozenset()), later())
    async for _ in _running(made):
        loading = asyncio.create_task(service.load_model("mlp", {"placement": "cloud"}, context))
        await until(lambda: cloud.wakes == 1)
        assert not loading.done()
        await catalogue.refresh()
        assert service.health().status == "ready"
        assert service.is_model_ready("mlp", None)
        generation = registry.serving_generation()
        cloud.comes = ReplicaReport({("mlp", "1"): IDLE}, {}, (), generation)
        cloud.start()
        await loading
        assert service.is_model_ready("mlp", None)


async def test_sleeping_is_no_failure_that_ejects(gateway: Gateway, cloud: Place) -> None:
    for _ in range(10):
        with pytest.raises(Overloaded):
            await gateway.send(timeout_s=0.1)
    assert gateway.table.ejections.now() == frozenset()


async def test_an_overdue_start_is_expected_later_and_later(gateway: Gateway) -> None:
    gateway.sleep.wake()
    gateway.clock.advance(40.0)
    assert gateway.sleep.left_s == pytest.approx(10.0, abs=0.5)
    await gateway.table.probe()
    assert gateway.shown[1] == "a replica is starting, for 40 s; about 10 s are left"
