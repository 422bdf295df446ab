"""A session stays where it is while that is no risk; only those of a place that goes away move."""

from __future__ import annotations

from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policies.routing import RULES, Decision, Request, RoutingTable, Target, decide
from policies.routing.filters import ruled_out
from policies.routing.sessions import home_of
from tests.policies.routing.strategies import NOW, requests, targets

names = st.lists(st.sampled_from([f"t{n}" for n in range(9)]), min_size=1, unique=True)
sessions = st.text(min_size=1, max_size=8)
ALIKE = [
    Target(f"t{n}", "edge", "plant-a", service_s=0.0625, row_s=0.0625, ahead_at=NOW, heard_at=NOW)
    for n in range(4)
]


def place_of(table: RoutingTable, request: Request) -> Decision:
    outcome = decide(request, table, NOW)
    assert isinstance(outcome, Decision)
    return outcome


@settings(max_examples=200, deadline=None)
@given(sessions, names, st.randoms())
def test_a_session_has_one_place_whatever_the_order(
    session: str, found: list[str], random: Random
) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    assert home_of(session, shuffled) == home_of(session, found)


@settings(max_examples=200, deadline=None)
@given(sessions, names, st.data())
def test_only_the_sessions_of_a_place_that_goes_away_move(
    session: str, found: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(found))
    assume(len(found) > 1)
    before = home_of(session, found)
    after = home_of(session, [name for name in found if name != gone])
    assert after == before or before == gone


def test_sessions_are_spread_over_places() -> None:
    places = [home_of(f"session-{n}", [t.name for t in ALIKE]) for n in range(400)]
    assert all(60 < places.count(target.name) < 140 for target in ALIKE)


def test_a_session_stays_at_its_place_however_the_others_are() -> None:
    table = RoutingTable(ALIKE)
    asked = Request(1.0, session="mine", origin_site="plant-a")
    first = place_of(table, asked)
    assert first.reason == "session"
    for _ in range(5):
        table.sent(first.target, asked, NOW)
    assert place_of(table, asked).target == first.target
    assert place_of(table, asked._replace(session="")).target != first.target


def test_a_session_leaves_a_place_where_it_would_be_late() -> None:
    table = RoutingTable(ALIKE)
    asked = Request(1.0, session="mine", origin_site="plant-a")
    home = place_of(table, asked).target
    for _ in range(20):
        table.sent(home, asked, NOW)
    found = place_of(table, asked)
    assert found.target != home
    assert found.reason != "session"


def test_a_session_is_not_kept_at_a_place_that_sleeps() -> None:
    asked = Request(60.0, session="mine", origin_site="plant-a")
    home = place_of(RoutingTable(ALIKE), asked).target
    table = RoutingTable(ALIKE)
    table.asleep(home, 10.0, NOW)
    assert place_of(table, asked).target != home


def test_what_keeping_a_session_risks_is_not_spent_of_the_budget() -> None:
    table = RoutingTable(ALIKE)
    before = table.risk_price("balanced")
    decided = [place_of(table, Request(1.0, session=f"s{n}")) for n in range(20)]
    moved = [decision for decision in decided if decision.spent is None]
    assert moved
    assert all(decision.reason == "session" for decision in moved)
    assert table.risk_price("balanced") <= before


@settings(max_examples=200, deadline=None)
@given(requests, targets(), sessions, st.sampled_from(sorted(RULES)))
def test_whatever_the_rule_a_session_never_breaks_a_filter(
    request: Request, found: list[Target], session: str, rule: str
) -> None:
    table = RoutingTable(found)
    request = request._replace(session=session)
    outcome = decide(request, table, NOW, RULES[rule])
    if isinstance(outcome, Decision) and outcome.reason != "last_resort":
        assert ruled_out(request, table[outcome.target]) is None
        assert outcome.target in {verdict.target for verdict in outcome.verdicts}
    again = decide(request, RoutingTable(found), NOW, RULES[rule])
    assert again == outcome
