"""Probes in advance, and the hot-cold rule over their answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import Decision, Request, RoutingTable, Target
from policies.routing.classical import RULES
from policies.routing.filters import ruled_out
from policies.routing.prequal import (
    FEWEST,
    HOT,
    MAX_AGE_S,
    POOL,
    PROBES,
    Probe,
    ProbePool,
    RecentLatencies,
    to_probe,
    uses_of,
)
from tests.policies.routing.strategies import NOW, requests, targets

FLEET = [Target(f"t{i}", "edge", "plant-a", prior_s=0.01) for i in range(6)]
probes = st.builds(Probe, st.integers(0, 20), st.integers(0, 64).map(lambda n: n / 64))
bits = st.integers(0, 2**64 - 1)


def pool_of(answers: Sequence[tuple[Target, Probe]], now: float = NOW) -> ProbePool:
    pool = ProbePool()
    for target, probe in answers:
        pool.add(probe, target, len(FLEET), now)
    return pool


def best(pool: ProbePool, now: float = NOW, *, weighted: bool = False, draw: int = 0) -> str | None:
    index = pool.best(FLEET, draw, now, weighted=weighted)
    return None if index is None else FLEET[index].name


# The choice.


@settings(max_examples=200, deadline=None)
@given(st.lists(probes, min_size=2, max_size=6), st.booleans(), bits)
def test_a_cold_place_is_taken_while_there_is_one_and_of_these_the_quickest(
    answers: list[Probe], weighted: bool, draw: int
) -> None:
    pool = pool_of(list(zip(FLEET, answers, strict=False)))
    chosen = answers[int((best(pool, weighted=weighted, draw=draw) or "t?")[1:])]
    rifs = sorted(probe.rif for probe in answers)
    limit = next(rif for rif in rifs if sum(r <= rif for r in rifs) >= HOT * len(rifs))
    cold = [probe for probe in answers if probe.rif <= limit]
    assert chosen in cold

    def latency_s(probe: Probe) -> float:
        return max(probe.latency_s, 0.01) if weighted else probe.latency_s

    assert latency_s(chosen) == min(map(latency_s, cold))


def test_where_all_are_hot_the_one_with_the_fewest_in_flight_is_taken() -> None:
    pool = pool_of([(FLEET[0], Probe(0, 0.1))] * 20)
    pool.add(Probe(9, 0.01), FLEET[1], len(FLEET), NOW + MAX_AGE_S)
    pool.add(Probe(8, 0.90), FLEET[2], len(FLEET), NOW + MAX_AGE_S)
    assert best(pool, NOW + 1.5 * MAX_AGE_S) == "t2"


def test_the_way_counts() -> None:
    far = FLEET[0]._replace(rtt_s=0.5)
    pool = pool_of([(FLEET[0], Probe(0, 0.1)), (FLEET[1], Probe(0, 0.4))])
    assert pool.best(FLEET, 0, NOW, weighted=False) == 0
    assert pool.best([far, *FLEET[1:]], 0, NOW, weighted=False) == 1


def test_weighted_a_request_in_flight_at_a_slow_place_counts_more() -> None:
    slow = FLEET[0]._replace(prior_s=1.0)
    pool = pool_of([(slow, Probe(2, 0.1)), (FLEET[1], Probe(4, 0.2)), (FLEET[2], Probe(3, 0.3))])
    fleet = [slow, *FLEET[1:]]
    assert pool.best(fleet, 0, NOW, weighted=False) == 0
    assert pool.best(fleet, 0, NOW, weighted=True) == 1


def test_weighted_no_place_is_quicker_than_it_is_said_to_be() -> None:
    slow = FLEET[0]._replace(prior_s=1.0)
    pool = pool_of([(slow, Probe(0, 0.0)), (FLEET[1], Probe(0, 0.2))])
    assert pool.best([slow, FLEET[1]], 0, NOW, weighted=False) == 0
    assert pool.best([slow, FLEET[1]], 0, NOW, weighted=True) == 1


def test_equal_places_are_drawn_evenly() -> None:
    pool = pool_of([(target, Probe(1, 0.1)) for target in FLEET[:4]])
    counts = Counter(best(pool, draw=draw) for draw in range(2000))
    assert set(counts) == {"t0", "t1", "t2", "t3"}
    assert all(430 < count < 570 for count in counts.values())


# The pool.


def test_with_too_few_answers_there_is_no_choice() -> None:
    pool = pool_of([(FLEET[0], Probe(0, 0.1))])
    assert len(pool) < FEWEST
    assert best(pool) is None


def test_an_answer_of_before_is_replaced_and_an_old_one_is_not_used() -> None:
    pool = pool_of([(FLEET[0], Probe(0, 0.1)), (FLEET[1], Probe(0, 0.2))])
    pool.add(Probe(0, 0.3), FLEET[0], len(FLEET), NOW)
    assert (len(pool), best(pool)) == (2, "t1")
    assert best(pool, NOW + 1.01 * MAX_AGE_S) is None
    pool.sent("t5", NOW + 1.01 * MAX_AGE_S)
    assert len(pool) == 0


def test_an_answer_that_was_replaced_is_young_again() -> None:
    pool = pool_of([(FLEET[index], Probe(0, 0.1 * index)) for index in (0, 1, 2, 0)])
    pool.sent("elsewhere", NOW)
    assert best(pool) == "t0"


def test_a_request_that_was_sent_is_in_flight_there() -> None:
    pool = pool_of([(FLEET[0], Probe(0, 0.1)), (FLEET[1], Probe(0, 0.2))])
    assert best(pool) == "t0"
    pool.sent("t0", NOW)
    assert best(pool) == "t1"


def test_an_answer_is_used_up() -> None:
    pool = pool_of([(FLEET[0], Probe(0, 0.1)), (FLEET[1], Probe(0, 0.2))])
    for _ in range(uses_of(len(FLEET))):
        assert len(pool) == 2
        pool.sent("t0", NOW)
    assert len(pool) == 1


def test_the_oldest_and_the_worst_leave_in_turn() -> None:
    names = {target.name for target in FLEET}
    pool = pool_of([(target, Probe(0, 0.1 * (i + 1))) for i, target in enumerate(FLEET[:5])])

    def left() -> set[str]:
        return {name for name in names if best_among(name) is not None}

    def best_among(name: str) -> int | None:
        known = [target for target in FLEET if target.name == name]
        pair = [*known, *(t for t in FLEET[:5] if t.name == "t1")]
        return pool.best(pair, 0, NOW, weighted=False) if name != "t1" else 0

    pool.sent("elsewhere", NOW)
    assert left() == {"t1", "t2", "t3", "t4"}
    pool.sent("elsewhere", NOW)
    assert left() == {"t1", "t2", "t3"}
    pool.sent("elsewhere", NOW)
    assert len(pool) == FEWEST
    pool.sent("elsewhere", NOW)
    assert len(pool) == FEWEST


def test_the_worst_is_the_hot_one_with_the_most_in_flight() -> None:
    pool = pool_of([(FLEET[2], Probe(0, 0.1))] * 30)
    for index, probe in enumerate([Probe(0, 0.9), Probe(9, 0.1)]):
        pool.add(probe, FLEET[index], len(FLEET), NOW)
    pool.add(Probe(0, 0.2), FLEET[3], len(FLEET), NOW)
    pool.add(Probe(8, 0.9), FLEET[4], len(FLEET), NOW)
    pool.sent("elsewhere", NOW)  # the oldest leaves
    pool.sent("elsewhere", NOW)
    assert pool.best([FLEET[0], FLEET[3]], 0, NOW, weighted=False) == 1
    assert pool.best([FLEET[1], FLEET[3]], 0, NOW, weighted=False) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 39), probes, st.booleans()), max_size=150))
def test_the_pool_stays_bounded_and_holds_each_place_once(
    events: list[tuple[int, Probe, bool]],
) -> None:
    fleet = [FLEET[0]._replace(name=f"t{i}") for i in range(40)]
    pool = ProbePool()
    for at, (index, probe, is_sent) in enumerate(events):
        now = NOW + at / 512
        if is_sent:
            pool.sent(fleet[index].name, now)
        else:
            pool.add(probe, fleet[index], len(fleet), now)
        assert len(pool) <= POOL
        chosen = pool.best(fleet, at, now, weighted=bool(index % 2))
        assert (chosen is not None) == (len(pool) >= FEWEST)


def test_a_full_pool_lets_the_oldest_go() -> None:
    fleet = [FLEET[0]._replace(name=f"t{i}") for i in range(POOL + 1)]
    pool = pool_of([(target, Probe(0, 0.1 + 0.01 * i)) for i, target in enumerate(fleet)])
    assert len(pool) == POOL
    assert pool.best(fleet, 0, NOW, weighted=False) == 1


def test_uses_follow_from_how_fast_the_pool_is_filled() -> None:
    # (1 + 1) / ((1 - 16/100) x 3 - 1) = 1.3
    assert uses_of(100) == 2
    assert uses_of(10_000) == 2
    assert uses_of(10_000, probes=8) == 1
    assert uses_of(24) == uses_of(7) == 8  # no new answers to speak of


# Whom to probe.


@settings(max_examples=100, deadline=None)
@given(requests, targets(), st.integers(0, 6))
def test_only_places_that_may_serve_are_probed_and_each_once(
    request: Request, found: list[Target], count: int
) -> None:
    names = to_probe(request, found, count)
    may = [target.name for target in found if ruled_out(request, target) is None]
    assert len(set(names)) == len(names) == min(count, len(may))
    assert set(names) <= set(may)
    assert names == to_probe(request, found, count)


def test_each_place_is_probed_as_often_as_any_other() -> None:
    counts = Counter(n for d in range(2000) for n in to_probe(Request(1.0, draw=d), FLEET))
    assert all(900 < counts[target.name] < 1100 for target in FLEET)
    assert sum(counts.values()) == 2000 * PROBES


# What a place answers.


def test_a_place_says_what_requests_took_with_as_many_in_flight() -> None:
    place = RecentLatencies()
    assert place.probe(3) == Probe(3, 0.0)
    for rif in (0, 9):
        for turn in range(10):
            place.took(rif, 0.1 * (rif + 1) + 0.01 * (turn % 3))
    assert place.probe(1).latency_s == pytest.approx(0.11)
    assert place.probe(8).latency_s == pytest.approx(1.01)


def test_of_requests_with_as_many_in_flight_the_latest_count() -> None:
    place = RecentLatencies()
    for seconds in [0.1] * 50 + [0.7] * 9:
        place.took(2, seconds)
    assert place.probe(2).latency_s == 0.7


# The rule.


@pytest.mark.parametrize("name", ["prequal", "weighted_prequal"])
def test_the_rule_goes_by_probes_and_draws_without_them(name: str) -> None:
    table = RoutingTable(FLEET)
    drawn = {_target(name, table, draw) for draw in range(200)}
    assert drawn == {target.name for target in FLEET}
    for index, seconds in ((2, 0.3), (4, 0.2)):
        table.probed(FLEET[index].name, Probe(0, seconds), NOW)
    assert {_target(name, table, draw) for draw in range(20)} == {"t4"}


def test_a_send_by_whatever_rule_is_counted_in_the_pool() -> None:
    table = RoutingTable(FLEET)
    for index, seconds in ((2, 0.3), (4, 0.2)):
        table.probed(FLEET[index].name, Probe(0, seconds), NOW)
    table.sent("t4", Request(1.0), NOW)
    assert _target("prequal", table, 0) == "t2"


def _target(name: str, table: RoutingTable, draw: int) -> str:
    outcome = RULES[name](Request(1.0, draw=draw), table, NOW)
    assert isinstance(outcome, Decision)
    return outcome.target
