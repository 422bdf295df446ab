"""A decision is taken again where nothing can have changed, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import RULES, Decision, Request, RoutingTable, Target, choose, decide
from policies.routing.deciding import AGAIN_S, AGAIN_WORK_S
from tests.policies.routing.strategies import NOW, requests, targets

ROW_S = AGAIN_WORK_S / 4
QUICK = [
    Target(f"t{n}", "edge", "plant-a", service_s=ROW_S, row_s=ROW_S, ahead_at=NOW, heard_at=NOW)
    for n in range(3)
]
ASKED = Request(1.0, bucket=7, moved_bytes=100, origin_site="plant-a")


def counted() -> tuple[Callable[[Request, RoutingTable, float], object], list[float]]:
    """Return a decider that notes when the table's price of risk was asked for anew."""
    asked: list[float] = []

    def ask(request: Request, table: RoutingTable, now: float) -> object:
        before = table.recent
        outcome = decide(request, table, now)
        if table.recent is not before:
            asked.append(now)
        return outcome

    return ask, asked


def test_requests_that_are_alike_get_one_decision_until_its_work_is_done() -> None:
    table, (ask, asked) = RoutingTable(QUICK), counted()
    for _ in range(10):
        ask(ASKED, table, NOW)
    assert len(asked) == 2  # one, and four that are like it; twice


@pytest.mark.parametrize(
    "other",
    [
        ASKED._replace(slack_s=0.8),
        ASKED._replace(bucket=8),
        ASKED._replace(moved_bytes=101),
        ASKED._replace(objective="latency"),
        ASKED._replace(tenant="acme"),
        ASKED._replace(zones=frozenset({""})),
        ASKED._replace(excluded=frozenset({"t0"})),
        ASKED._replace(session="mine"),
    ],
)
def test_a_request_that_is_not_alike_gets_its_own(other: Request) -> None:
    table, (ask, asked) = RoutingTable(QUICK), counted()
    ask(ASKED, table, NOW)
    assert ask(other, table, NOW) == choose(other, table, NOW) or other.session
    assert len(asked) == 2


CHANGES: list[Callable[[RoutingTable], object]] = [
    lambda table: table.change("t0", is_up=False),
    lambda table: table.measured("t1", 0.5),
    lambda table: table.add(QUICK[0]._replace(name="t9")),
    lambda table: table.late(table.sent("t0", ASKED, NOW), NOW, 1.0),
]


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_it_is_decided_anew(change: Callable[[RoutingTable], object]) -> None:
    table, (ask, asked) = RoutingTable(QUICK), counted()
    ask(ASKED, table, NOW)
    change(table)
    ask(ASKED, table, NOW)
    assert len(asked) == 2


def test_after_a_moment_it_is_decided_anew() -> None:
    table, (ask, asked) = RoutingTable(QUICK), counted()
    ask(ASKED, table, NOW)
    ask(ASKED, table, NOW + AGAIN_S / 2)
    ask(ASKED, table, NOW + 2 * AGAIN_S)
    assert len(asked) == 2


def test_a_place_whose_work_is_not_known_or_is_much_is_decided_on_each_time() -> None:
    for row_s in (0.0, 2 * AGAIN_WORK_S):
        table = RoutingTable([target._replace(row_s=row_s) for target in QUICK])
        decide(ASKED, table, NOW)
        assert table.recent is None


def test_where_there_is_one_candidate_its_work_does_not_matter() -> None:
    table, (ask, asked) = RoutingTable([QUICK[0]._replace(row_s=0.1)]), counted()
    for _ in range(10):
        ask(ASKED, table, NOW)
    assert len(asked) == 1


def test_other_rules_decide_each_time() -> None:
    table = RoutingTable(QUICK)
    found = [
        decide(ASKED._replace(turn=turn), table, NOW, RULES["round_robin"]) for turn in range(6)
    ]
    assert {each.target for each in found if isinstance(each, Decision)} == {"t0", "t1", "t2"}


@settings(max_examples=200, deadline=None)
@given(requests, targets(), st.integers(0, 15).map(lambda n: n / 4096))
def test_taken_again_it_is_what_would_be_decided_then(
    request: Request, found: list[Target], later_s: float
) -> None:
    """But for what drains meanwhile."""
    table = RoutingTable([target._replace(row_s=min(target.row_s, ROW_S)) for target in found])
    first = decide(request, table, NOW)
    recent = table.recent
    second = decide(request._replace(turn=request.turn + 1), table, NOW + later_s)
    if recent is not None and request.slack_s >= 0.0:
        assert second == first
    if not request.session:
        assert first == choose(request, RoutingTable(table.targets), NOW)
