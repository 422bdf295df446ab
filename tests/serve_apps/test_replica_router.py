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
    from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID

TIER = DeploymentID("Inference", "cloud")


@dataclass(frozen=True)
class Replica:
    """What the router looks at of a replica."""

    replica_id: ReplicaID


@pytest.fixture
async def router() -> Any:
    return FewestUnderWay(TIER, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True)


def _replicas(count: int) -> list[Any]:
    return [Replica(ReplicaID(f"r{index}", TIER)) for index in range(count)]


async def _best(router: Any, replicas: list[Any]) -> ReplicaID:
    ranks = await router.choose_replicas(replicas)
    assert all(len(rank) == 1 for rank in ranks)
    assert sorted(rank[0].replica_id.unique_id for rank in ranks) == [
        each.replica_id.unique_id for each in replicas
    ]
    best: ReplicaID = ranks[0][0].replica_id
    return best


async def test_calls_are_spread_evenly_and_go_where_one_has_ended(router: Any) -> None:
    replicas = _replicas(3)
    for _ in range(12):
        router.on_send_request(await _best(router, replicas))
    idle = replicas[1].replica_id
    router.on_request_completed(idle, "q")
    assert await _best(router, replicas) == idle


async def test_what_a_replica_said_long_ago_does_not_count(router: Any) -> None:
    replicas = _replicas(2)
    left_alone = replicas[0].replica_id
    router.on_new_queue_len_info(left_alone, 500)
    chosen = []
    for _ in range(10):
        best = await _best(router, replicas)
        router.on_send_request(best)
        chosen.append(best)
    assert Counter(chosen)[left_alone] == 5


async def test_those_who_choose_at_once_see_each_other(router: Any) -> None:
    replicas = _replicas(4)
    chosen = await asyncio.gather(*(_best(router, replicas) for _ in range(8)))
    assert Counter(chosen) == {each.replica_id: 2 for each in replicas}


async def test_without_replicas_there_is_nothing_to_choose(router: Any) -> None:
    assert await router.choose_replicas([]) == []


def test_a_choice_that_nobody_sends_is_forgotten() -> None:
    under_way = UnderWay()
    under_way.chosen("a", 1.0)
    assert under_way.count("a", 1.0 + 0.9 * CHOSEN_S) == 1
    assert under_way.count("a", 1.0 + 1.1 * CHOSEN_S) == 0


@given(st.lists(st.sampled_from("abc")), st.data())
def test_every_send_is_matched_by_one_end(sends: list[str], data: st.DataObject) -> None:
    under_way = UnderWay()
    for replica in sends:
        under_way.chosen(replica, 0.0)
        under_way.sent(replica)
    assert {r: under_way.count(r, 0.0) for r in "abc"} == {r: sends.count(r) for r in "abc"}
    for replica in data.draw(st.permutations(sends)):
        under_way.ended(replica)
    under_way.ended("a")  # of a send that failed before it was one
    assert [under_way.count(r, 0.0) for r in "abc"] == [0, 0, 0]
    assert not under_way._sent


def test_serve_finds_it_by_its_path() -> None:
    assert import_attr(PATH) is FewestUnderWay
