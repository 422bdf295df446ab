"""The router by itself, told what Serve tells it; that Serve uses it is seen end to end."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.replica_router import CHOSEN_S, PATH, FewestUnderWay, UnderWay

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray 2.60 uses what pydantic is going to remove
    from ray._common.utils import import_attr
    from ray.serve._private.common import (
        DeploymentHandleSource,
        DeploymentID,
        ReplicaID,
        RequestMetadata,
    )
    from ray.serve.request_router import PendingRequest

TIER = DeploymentID("Inference", "cloud")


@dataclass(frozen=True)
class Replica:
    """What the router looks at of a replica."""

    replica_id: ReplicaID


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def router() -> Any:
    """A router as Serve makes one; its time stands still."""
    return FewestUnderWay(
        TIER,
        DeploymentHandleSource.REPLICA,
        use_replica_queue_len_cache=True,
        get_curr_time_s=Clock(),
    )


def _replicas(router: Any, count: int) -> list[Any]:
    """Return replicas that have said of themselves that they have nothing."""
    made = [Replica(ReplicaID(f"r{index}", TIER)) for index in range(count)]
    for each in made:
        router.on_new_queue_len_info(each.replica_id, 0)
    return made


async def _best(router: Any, replicas: list[Any]) -> ReplicaID:
    ranks = await router.choose_replicas(replicas)
    ranked = [each.replica_id.unique_id for rank in ranks for each in rank]
    assert sorted(ranked) == [each.replica_id.unique_id for each in replicas]
    best: ReplicaID = ranks[0][0].replica_id
    return best


async def test_calls_are_spread_evenly_and_go_where_one_has_ended(router: Any) -> None:
    replicas = _replicas(router, 3)
    for _ in range(12):
        router.on_send_request(await _best(router, replicas))
    idle = replicas[1].replica_id
    router.on_request_completed(idle, "q")
    assert await _best(router, replicas) == idle


async def test_what_a_replica_said_long_ago_does_not_count(router: Any) -> None:
    replicas = _replicas(router, 2)
    left_alone = replicas[0].replica_id
    router.on_new_queue_len_info(left_alone, 500)
    chosen = []
    for _ in range(10):
        best = await _best(router, replicas)
        router.on_send_request(best)
        chosen.append(best)
    assert Counter(chosen)[left_alone] == 5


async def test_those_who_choose_at_once_see_each_other(router: Any) -> None:
    replicas = _replicas(router, 4)
    chosen = await asyncio.gather(*(_best(router, replicas) for _ in range(8)))
    assert Counter(chosen) == {each.replica_id: 2 for each in replicas}


async def test_without_replicas_there_is_nothing_to_choose(router: Any) -> None:
    assert await router.choose_replicas([]) == []


async def test_one_that_serve_knows_nothing_of_is_asked_beside_the_best_and_not_before_it(
    router: Any,
) -> None:
    replicas = _replicas(router, 3)
    unknown, busy, idle = replicas
    router.on_replica_actor_unavailable(unknown.replica_id)
    router.on_send_request(busy.replica_id)
    assert await router.choose_replicas(replicas) == [[idle, unknown], [busy]]
    assert await router.choose_replicas([unknown]) == [[unknown]]


async def test_who_finds_no_replica_pauses_before_the_next_try(router: Any) -> None:
    pending = PendingRequest([], {}, RequestMetadata("q", "q"))
    assert not pending.routing_context.should_backoff
    await router.choose_replicas(_replicas(router, 1), pending)
    assert pending.routing_context.should_backoff


def test_a_choice_that_nobody_sends_is_forgotten_however_much_is_sent() -> None:
    clock = Clock()
    under_way = UnderWay(clock)
    under_way.chosen("a")
    assert under_way.count("a") == 1
    for _ in range(20):
        under_way.chosen("a")
        under_way.sent("a")
        clock.now += 0.1 * CHOSEN_S
    assert under_way.count("a") == 20


def test_what_was_chosen_of_replicas_that_are_gone_is_not_kept() -> None:
    under_way = UnderWay(Clock())
    under_way.chosen("a")
    under_way.chosen("b")
    under_way.keep(frozenset("b"))
    assert [under_way.count(each) for each in "ab"] == [0, 1]


@given(st.lists(st.sampled_from("abc")), st.data())
def test_what_was_sent_and_has_ended_is_not_kept(sends: list[str], data: st.DataObject) -> None:
    under_way = UnderWay(Clock())
    for replica in sends:
        under_way.chosen(replica)
        under_way.sent(replica)
    assert {each: under_way.count(each) for each in "abc"} == {
        each: sends.count(each) for each in "abc"
    }
    for replica in data.draw(st.permutations(sends)):
        under_way.ended(replica)
    under_way.ended("a")  # of a send that failed before it was one
    assert [under_way.count(each) for each in "abc"] == [0, 0, 0]
    assert not under_way._sent


def test_serve_finds_it_by_its_path() -> None:
    assert import_attr(PATH) is FewestUnderWay
