"""A request reaches a target that can serve it, once more elsewhere when the first is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import pytest

from edge_runtime.auth import Principal
from edge_runtime.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    PrimeSparkError,
    Unavailable,
)
from edge_runtime.protocol.service import CallContext
from policies.cost import Budget, Rates, Spending
from policies.routing import Objective
from policies.routing.ejection import EjectionRules
from serve_apps.gateway.arrivals import Arrivals
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.dispatch import DEGRADED, Dispatched, Dispatcher
from serve_apps.gateway.ledger import Ledger
from serve_apps.gateway.targets import SILENCE_S, RemoteTarget, TargetLost, TargetTable
from serve_apps.gateway.wishes import Wishes
from tests.serve_apps.gateway.place import IDLE, KEY, Clock, Place, later, remote, request, until

ANYWHERE = frozenset({"cloud", "edge", "colocated"})
EDGE = frozenset({"edge"})


class Gateway:
    """A dispatcher over two places: the cloud, which is tried first, and the edge site lab."""

    def __init__(
        self,
        places: Mapping[str, Place],
        wishes: Wishes | None = None,
        ejection: EjectionRules | None = None,
    ) -> None:
        self.clock = Clock()
        self.places = places
        self.targets = [remote(name, place, self.clock) for name, place in places.items()]
        self.table = TargetTable(self.targets, ejection=ejection, clock=self.clock)
        self.log = DecisionLog()
        self.spending = Spending([Budget("all", 1.0, "day")])
        self.ledger = Ledger(spending=self.spending)
        self.arrivals = Arrivals()
        self.dispatcher = Dispatcher(
            self.table,
            self.log,
            wall=lambda: 12.5,
            clock=self.clock,
            ledger=self.ledger,
            wishes=wishes,
            arrivals=self.arrivals,
        )

    def send(
        self,
        *,
        timeout_s: float = 60.0,
        site: str | None = "dc",
        tier: str | None = None,
        prefer: frozenset[str] = frozenset(),
        session: str = "",
        objective: Objective | None = None,
    ) -> asyncio.Task[Dispatched]:
        principal = Principal("tester", frozenset())
        context = CallContext(
            principal,
            later(timeout_s),
            origin_site=site,
            tier=tier,
            session=session,
            objective=objective,
        )
        return asyncio.create_task(self.dispatcher.infer(request(), "1", ANYWHERE, context, prefer))

    @property
    def story(self) -> list[tuple[str, str, int, str]]:
        """What the log tells, oldest first: target, reason, attempt, outcome."""
        found = self.log.read({})["decisions"]
        return [(d["target"], d["reason"], d["attempt"], d["outcome"]) for d in reversed(found)]

    @property
    def outstanding(self) -> int:
        return sum(target.view(KEY).outstanding for target in self.targets)


async def _gateway(wishes: Wishes | None = None, **places: Place) -> Gateway:
    names = {"cloud": "cloud", "edge": "edge/lab"}
    made = Gateway({names[name]: place for name, place in places.items()}, wishes)
    await made.table.probe()
    return made


@pytest.fixture
def cloud() -> Place:
    return Place()


@pytest.fixture
def edge() -> Place:
    return Place()


@pytest.fixture
async def gateway(cloud: Place, edge: Place) -> Gateway:
    return await _gateway(cloud=cloud, edge=edge)


@pytest.fixture
async def alone(cloud: Place) -> Gateway:
    return await _gateway(cloud=cloud)


async def test_an_answer_says_where_it_came_from_and_the_log_says_why(gateway: Gateway) -> None:
    found = await gateway.send(site="lab")
    assert found.answer.outputs[0].data.tolist() == [[2.0, 4.0]]
    assert (found.target, found.reason) == ("edge/lab", "origin_site")
    (record,) = gateway.log.read({})["decisions"]
    assert record["at"] == 12.5
    assert (record["id"], record["model"], record["version"]) == ("r1", "m", "1")
    assert [v["target"] for v in record["considered"]] == ["cloud", "edge/lab"]
    assert gateway.story == [("edge/lab", "origin_site", 1, "ok")]
    assert gateway.log.decisions == 1
    assert 0.0 < gateway.log.deciding_s < 60.0


async def test_an_answer_that_cannot_be_read_is_a_fault_of_ours_and_no_longer_under_way(
    gateway: Gateway, edge: Place
) -> None:
    edge.garbles = True
    with pytest.raises(ValueError, match="unpack"):
        await gateway.send(site="lab")
    assert gateway.outstanding == 0
    assert [outcome for *_, outcome in gateway.story] == [PrimeSparkError.code]


async def test_requests_are_counted_for_scaling_where_they_went_first(
    gateway: Gateway, cloud: Place
) -> None:
    await gateway.send(site="lab")
    await gateway.send(tier="cloud")
    cloud.fail()
    await gateway.send(tier=None, site="dc")
    gateway.targets[0].lose("a test took it away")
    with pytest.raises(Unavailable):
        await gateway.send(tier="cloud")
    counts = gateway.arrivals.counts(gateway.table, 1.0)
    # A repeat is no arrival, and what nobody can take asks for the cloud.
    assert counts.came == {"m": {"edge/lab": 1, "cloud": 3}}
    assert counts.done == {"m": 1}  # the edge answered the repeat


async def test_a_caller_who_insists_on_a_tier_gets_it_or_nothing(
    gateway: Gateway, edge: Place
) -> None:
    assert (await gateway.send(tier="edge")).reason == "tier_requested"
    edge.fail()
    with pytest.raises(TargetLost):
        await gateway.send(tier="edge")
    with pytest.raises(Unavailable, match="cloud: other_tier"):
        await gateway.send(tier="colocated")


async def test_a_lost_request_is_repeated_once_elsewhere(gateway: Gateway, cloud: Place) -> None:
    cloud.hang()
    task = gateway.send()
    await until(lambda: cloud.running == 1)
    cloud.fail()
    found = await task
    assert (found.target, found.reason) == ("edge/lab", "failover")
    assert gateway.story == [
        ("cloud", "origin_site", 1, "target_lost"),
        ("edge/lab", "failover", 2, "ok"),
    ]
    assert gateway.outstanding == 0


@pytest.mark.parametrize(
    "refusal", [Overloaded("full", retry_after_s=2.0), NotFound("unloaded"), Unavailable("closing")]
)
async def test_what_one_target_refuses_for_its_state_another_may_take(
    gateway: Gateway, cloud: Place, refusal: PrimeSparkError
) -> None:
    cloud.refuse(refusal)
    assert (await gateway.send()).target == "edge/lab"
    assert gateway.story[0][3] == refusal.code


async def test_what_is_wrong_with_the_request_is_not_tried_again(
    gateway: Gateway, cloud: Place, edge: Place
) -> None:
    cloud.refuse(InvalidInput("no such input", field="z"))
    with pytest.raises(InvalidInput):
        await gateway.send()
    assert edge.calls == []


async def test_there_is_no_second_attempt_with_nothing_else_to_try(
    alone: Gateway, cloud: Place
) -> None:
    cloud.fail()
    with pytest.raises(TargetLost) as error:
        await alone.send()
    assert error.value.retry_after_s is not None
    assert len(cloud.calls) == 1
    assert alone.story == [("cloud", "only_candidate", 1, "target_lost")]


async def test_a_request_lost_with_one_replica_is_repeated_on_those_left() -> None:
    cloud = Place(replicas=2)
    gateway = await _gateway(cloud=cloud)
    cloud.fails_next = 1
    found = await gateway.send()
    assert (found.target, found.reason) == ("cloud", "failover")
    assert len(cloud.calls) == 2


async def test_a_third_attempt_is_never_made_and_the_first_failure_is_told(
    gateway: Gateway, cloud: Place, edge: Place
) -> None:
    cloud.refuse(Overloaded("the cloud is full", retry_after_s=3.0))
    edge.fail()
    with pytest.raises(Overloaded, match="the cloud is full") as error:
        await gateway.send()
    assert error.value.retry_after_s == 3.0
    assert (len(cloud.calls), len(edge.calls)) == (1, 1)


async def test_a_model_unloaded_meanwhile_is_unavailable_not_unknown(
    alone: Gateway, cloud: Place
) -> None:
    cloud.refuse(NotFound("model 'm' version '1' is not loaded here"))
    with pytest.raises(Unavailable, match="moved or unloaded"):
        await alone.send()


async def test_the_deadline_ends_a_call_and_frees_the_replica(alone: Gateway, cloud: Place) -> None:
    cloud.hang()
    with pytest.raises(DeadlineExceeded):
        await alone.send(timeout_s=0.05)
    await until(lambda: cloud.running == 0)
    assert cloud.cancelled == 1
    assert alone.story == [("cloud", "only_candidate", 1, "deadline_exceeded")]
    assert alone.outstanding == 0


async def test_a_request_that_hears_nothing_moves_within_its_deadline_and_ejects_nobody(
    cloud: Place, edge: Place
) -> None:
    names = {"cloud": cloud, "edge/lab": edge}
    gateway = Gateway(names, ejection=EjectionRules(consecutive=1))
    await gateway.table.probe()
    cloud.hang()
    found = await gateway.send(timeout_s=0.5)
    assert (found.target, found.reason) == ("edge/lab", "failover")
    assert gateway.story == [
        ("cloud", "origin_site", 1, "target_silent"),
        ("edge/lab", "failover", 2, "ok"),
    ]
    assert (cloud.running, cloud.cancelled) == (0, 1)
    assert gateway.table.ejections.now() == frozenset(), "half a second may be a busy processor"
    assert gateway.outstanding == 0


async def test_a_request_whose_time_is_over_is_sent_nowhere(gateway: Gateway) -> None:
    with pytest.raises(DeadlineExceeded):
        await gateway.send(timeout_s=-1.0)
    assert gateway.story == []


async def test_a_request_sent_to_a_silent_target_moves_and_the_next_avoids_it(
    gateway: Gateway, cloud: Place
) -> None:
    cloud.silence()
    task = gateway.send()
    await until(lambda: cloud.running == 1)
    gateway.clock.advance(SILENCE_S)
    await gateway.table.probe()
    assert (await task).target == "edge/lab"
    assert (await gateway.send()).target == "edge/lab"
    assert len(cloud.calls) == 1
    verdicts = gateway.log.read({"limit": "1"})["decisions"][0]["considered"]
    assert verdicts[0]["ruled_out"] == "silent"
    cloud.recover()
    await gateway.table.probe()
    assert (await gateway.send()).target == "cloud"


async def test_probing_alone_moves_a_request_away_from_a_target_that_hangs(
    gateway: Gateway, cloud: Place
) -> None:
    cloud.hang()
    task = gateway.send()
    await until(lambda: cloud.running == 1)
    probing = asyncio.create_task(gateway.table.run())
    assert (await task).target == "edge/lab"
    probing.cancel()
    with suppress(asyncio.CancelledError):
        await probing


async def test_a_silent_target_is_the_last_resort(alone: Gateway, cloud: Place) -> None:
    cloud.silence()
    alone.clock.advance(SILENCE_S)
    await alone.table.probe()
    task = alone.send()
    await until(lambda: cloud.running == 1)
    cloud.recover()
    assert (await task).reason == "last_resort"


async def test_a_caller_that_gives_up_is_logged_and_frees_its_place(
    gateway: Gateway, cloud: Place
) -> None:
    cloud.hang()
    task = gateway.send()
    await until(lambda: cloud.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (cloud.running, cloud.cancelled) == (0, 1)
    assert gateway.story == [("cloud", "origin_site", 1, "cancelled")]
    assert gateway.outstanding == 0


async def test_no_request_fails_when_a_target_dies_under_many_of_them(
    gateway: Gateway, cloud: Place
) -> None:
    cloud.hang()
    tasks = [gateway.send() for _ in range(120)]
    await until(lambda: cloud.running > 50)
    cloud.fail()
    found = await asyncio.gather(*tasks)
    assert {each.target for each in found} == {"edge/lab"}
    cloud_target = gateway.table["cloud"]
    assert isinstance(cloud_target, RemoteTarget)
    assert not cloud_target.is_up
    assert gateway.outstanding == 0


async def test_without_any_target_the_answer_says_what_was_found(alone: Gateway) -> None:
    alone.targets[0].lose("for the test")
    with pytest.raises(Unavailable, match="cloud: down") as error:
        await alone.send()
    assert error.value.retry_after_s == 1.0


async def test_a_request_that_should_go_to_the_edge_does_whatever_its_caller_insists_on(
    gateway: Gateway,
) -> None:
    found = await gateway.send(tier="cloud", prefer=EDGE)
    assert (found.target, found.reason) == ("edge/lab", DEGRADED)
    assert (await gateway.send(tier="cloud")).target == "cloud"


async def test_a_request_that_should_go_to_the_edge_never_fails_for_that(
    gateway: Gateway, alone: Gateway, edge: Place
) -> None:
    assert (await alone.send(prefer=EDGE)).target == "cloud"
    edge.refuse(Overloaded("busy"))
    found = await gateway.send(prefer=EDGE)
    assert (found.target, found.reason) == ("cloud", "failover")
    assert gateway.story == [
        ("edge/lab", DEGRADED, 1, "overloaded"),
        ("cloud", "failover", 2, "ok"),
    ]


async def test_an_answer_costs_its_work_and_the_bytes_that_crossed_the_border(
    gateway: Gateway,
) -> None:
    rates = Rates(replica_usd_per_s=2.0, egress_usd_per_byte=0.5, busy_w=3.0, carbon_g_per_j=0.25)
    for target in gateway.targets:
        target.rates = rates
    await gateway.send(site="dc", tier="cloud")
    await gateway.send(site="dc", tier="edge")
    edge, cloud = gateway.log.read({})["decisions"]
    assert cloud["parts"] == {"replica": 0.002, "egress": 0.0, "energy": 0.0, "carbon": 0.0}
    assert edge["parts"]["egress"] == 0.5 * (8 + 8)  # two numbers there, two back
    assert cloud["joules"] == pytest.approx(0.003)
    assert cloud["carbon_g"] == pytest.approx(0.00075)
    assert edge["usd"] == pytest.approx(8.002)
    assert gateway.ledger.costs["edge/lab"].usd == edge["usd"]
    (all_of_it,) = gateway.spending.totals(12.5)
    assert all_of_it.spent_usd == pytest.approx(cloud["usd"] + edge["usd"])


async def test_an_attempt_without_an_answer_costs_what_it_moved_and_no_work(
    gateway: Gateway, edge: Place
) -> None:
    for target in gateway.targets:
        target.rates = Rates(replica_usd_per_s=2.0, egress_usd_per_byte=0.5)
    edge.refuse(InvalidInput("no"))
    with pytest.raises(InvalidInput):
        await gateway.send(site="dc", tier="edge")
    (record,) = gateway.log.read({})["decisions"]
    assert record["parts"] == {"replica": 0.0, "egress": 4.0, "energy": 0.0, "carbon": 0.0}


async def test_the_objective_is_the_caller_s_or_the_model_s_or_the_default() -> None:
    slow, quick = (replace(IDLE, service_s=seconds, row_s=seconds) for seconds in (0.2, 0.01))
    wishes = Wishes(objectives=(("m", "latency"), ("*", "cost")))
    gateway = await _gateway(wishes, cloud=Place(load=quick), edge=Place(load=slow))
    assert (await gateway.send(site="lab", timeout_s=2.0)).target == "cloud"
    cheap = await gateway.send(site="lab", timeout_s=2.0, objective="cost")
    assert cheap.target == "edge/lab"


async def test_a_session_stays_at_one_place() -> None:
    gateway = await _gateway(cloud=Place(), edge=Place())
    for name in ("mine", "yours", "theirs", "ours"):
        found = [await gateway.send(session=name) for _ in range(4)]
        assert len({each.target for each in found}) == 1
        assert {each.reason for each in found} == {"session"}
    assert {target for target, *_ in gateway.story} == {"cloud", "edge/lab"}


async def test_another_rule_is_a_setting() -> None:
    gateway = await _gateway(Wishes(rule="round_robin"), cloud=Place(), edge=Place())
    for _ in range(6):
        await gateway.send()
    assert {target for target, *_ in gateway.story} == {"cloud", "edge/lab"}
    assert {reason for _, reason, *_ in gateway.story} == {"by_rule"}
