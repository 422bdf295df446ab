"""The model chooses among what is nearly as good, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from policies.routing import Decision, Load, NoTarget, Request, RoutingTable, Target
from policies.routing import choose as safe_choose
from policies.routing.columns import Columns
from policies.routing.context import Context
from policies.routing.filters import ruled_out
from policies.routing.learned import (
    EXPLORED,
    LEARNED,
    MARGIN,
    RISK,
    SLOWER,
    SLOWER_S,
    choose,
)
from policies.routing.learner import ENOUGH, Foreseen, Learner
from policies.routing.table import LOOP
from policies.routing.utility import WEIGHTS, scores
from tests.policies.routing.strategies import NOW, free_requests, requests, targets, usable_targets


def believing(found: list[Target], seed: int) -> RoutingTable:
    """Return a table whose model has learned something, and is believed whatever that is."""
    other = RoutingTable(found)
    learner = other.learning()
    rng = Random(seed)
    for _ in range(40):
        target = rng.choice(other.targets)
        request = Request(rng.choice((0.1, 0.5, 2.0)), bucket=rng.randrange(32))
        sent = other.sent(target.name, request, NOW)
        other.answered(sent, NOW + target.rtt_s + rng.expovariate(4.0), None, NOW)
    learner.lateness.is_given = learner.delay.is_given = True
    table = RoutingTable(found)
    table.learner = learner
    return table


def plain_scores(request: Request, table: RoutingTable, outcome: Decision) -> dict[str, float]:
    """Return the safe rule's score of each target that may serve."""
    verdicts = outcome.verdicts
    usable = [i for i, verdict in enumerate(verdicts) if verdict.ruled_out is None]
    weight = WEIGHTS[request.objective]
    if not weight.budget:
        return {verdicts[i].target: verdicts[i].expected_s for i in usable}
    places = [table[verdict.target] for verdict in verdicts]
    price = table.risk_price(request.objective)
    cost = scores(request, places, verdicts, usable, weight, price)
    return dict(zip([verdicts[i].target for i in usable], cost, strict=True))


seeds = st.integers(0, 2**16)


@settings(max_examples=150, deadline=None)
@given(requests, targets(), seeds)
def test_it_never_leaves_what_filters_and_safe_rule_allow(
    request: Request, found: list[Target], seed: int
) -> None:
    assume(found)
    table = believing(found, seed)
    safe, outcome = safe_choose(request, table, NOW), choose(request, table, NOW)
    assert type(outcome) is type(safe)
    if not isinstance(outcome, Decision) or not isinstance(safe, Decision):
        return
    if outcome.target == safe.target:
        assert outcome[:4:2] == safe[:4:2]
        assert outcome.reason == safe.reason
        return
    assert outcome.reason == LEARNED
    assert ruled_out(request, table[outcome.target]) is None
    assert outcome.late <= safe.late + RISK
    cost = plain_scores(request, table, outcome)
    if WEIGHTS[request.objective].budget:
        prices = [v.usd for v in outcome.verdicts if v.ruled_out is None]
        most = cost[safe.target] + MARGIN * (max(prices) - min(prices))
    else:
        most = cost[safe.target] * (1.0 + SLOWER) + SLOWER_S
    assert cost[outcome.target] <= most


@settings(max_examples=100, deadline=None)
@given(requests, targets(), seeds, st.sampled_from([(False, False), (True, False), (False, True)]))
def test_a_model_that_is_not_believed_changes_nothing(
    request: Request, found: list[Target], seed: int, given: tuple[bool, bool]
) -> None:
    assume(found)
    table = believing(found, seed)
    learner = table.learning()
    learner.lateness.is_given, learner.delay.is_given = given
    assume(not learner.delay.is_given or request.objective != "latency")
    assert choose(request, table, NOW) == safe_choose(request, table, NOW)


@settings(max_examples=100, deadline=None)
@given(requests, targets(), seeds)
def test_it_is_the_same_for_the_same(request: Request, found: list[Target], seed: int) -> None:
    assume(found)
    first = choose(request, believing(found, seed), NOW)
    assert first == choose(request, believing(found, seed), NOW)


@settings(max_examples=100, deadline=None)
@given(free_requests, usable_targets(min_size=2), seeds)
def test_the_order_of_targets_is_no_matter(
    request: Request, found: list[Target], seed: int
) -> None:
    table = believing(found, seed)
    other = RoutingTable(found[::-1])
    other.learner = table.learner
    ours, theirs = choose(request, table, NOW), choose(request, other, NOW)
    if not isinstance(ours, Decision) or not isinstance(theirs, Decision):
        assert type(ours) is type(theirs)
        return
    assert (ours.target, ours.reason, ours.spent) == (theirs.target, theirs.reason, theirs.spent)


def test_a_table_in_which_nothing_may_serve_has_no_choice() -> None:
    assert isinstance(choose(Request(1.0), RoutingTable([]), NOW), NoTarget)


# A world with something to learn: of places that say the same of themselves, those that say that
# they are busy take three times as long, which no report and no usual error shows.
TWINS = [
    Target(f"t{n}", "edge", "plant-a", rtt_s=0.01, service_s=0.1, prior_s=0.1, row_s=0.05)
    for n in range(2)
]
ASKED = Request(1.0, origin_site="plant-a", objective="latency")


def lived(slower: float) -> tuple[RoutingTable, float]:
    """Return a table that has seen that world, and the time. slower: of busy places; 1: they are
    no slower than the others."""
    rng = Random(1)
    table = RoutingTable(TWINS)
    table.learning()
    now = NOW
    for tick in range(6 * ENOUGH):
        now += 1.0
        target = table.targets[tick % 2]
        busy = rng.choice((0.2, 0.8))
        table.heard(target.name, Load(service_s=0.1, row_s=0.05, busy=busy), now)
        sent = table.sent(target.name, ASKED, now)
        taken_s = 0.01 + 0.1 * (slower if busy > 0.5 else 1.0) * rng.uniform(0.95, 1.05)
        table.answered(sent, now + taken_s, None, now)
    now += 1.0
    for name, busy in (("t0", 0.8), ("t1", 0.2)):
        table.heard(name, Load(service_s=0.1, row_s=0.05, busy=busy), now)
        table.change(name, bias=1.0)  # else their latest errors may settle it
    return table, now


def test_it_chooses_what_it_has_learned_to_be_quicker_and_says_why() -> None:
    table, now = lived(3.0)
    assert table.learning().is_believed("latency")
    safe, found = safe_choose(ASKED, table, now), choose(ASKED, table, now)
    assert isinstance(safe, Decision)
    assert isinstance(found, Decision)
    assert (safe.target, found.target, found.reason) == ("t0", "t1", LEARNED)
    slow, quick = (verdict.model_s for verdict in found.verdicts)
    assert slow is not None
    assert quick is not None
    assert slow > 1.5 * quick


def test_where_nothing_can_be_learned_the_safe_rule_decides() -> None:
    table, now = lived(1.0)
    assert not table.learning().is_believed("latency")
    assert choose(ASKED, table, now) == safe_choose(ASKED, table, now)


def test_it_explores_what_it_knows_less_of_but_seldom() -> None:
    table, now = lived(3.0)
    rng = Random(4)
    found = [choose(ASKED._replace(draw=rng.getrandbits(64)), table, now) for _ in range(3000)]
    told = [outcome.verdicts for outcome in found if isinstance(outcome, Decision)]
    usual = max(set(told), key=told.count)
    hopeful = [verdicts for verdicts in told if verdicts != usual]
    assert 0.5 * EXPLORED < len(hopeful) / len(found) < 2.0 * EXPLORED
    for verdicts in hopeful:
        assert all(
            (a.model_s or 0.0) < (b.model_s or 0.0) for a, b in zip(verdicts, usual, strict=True)
        )


class Said(Learner):
    """A model that is believed and says what it is told to."""

    __slots__ = ("_says",)

    def __init__(self, *says: Foreseen) -> None:
        super().__init__()
        self._says = says
        self.delay.is_given = self.lateness.is_given = True

    def foresee(self, contexts: Sequence[Context], *, is_hopeful: bool = False) -> list[Foreseen]:
        assert len(contexts) == len(self._says)
        return list(self._says)


def test_what_it_spends_of_the_budget_is_counted_by_the_safe_estimates() -> None:
    safest = Target(
        "t0", "edge", "plant-a", service_s=0.1, usd=1.0, heard_at=NOW, errors=(1.0,) * 100
    )
    riskier = safest._replace(name="t1", errors=(1.0,) * 99 + (9.0,))
    dearer = safest._replace(name="t2", usd=2.0)
    table = RoutingTable([safest, riskier, dearer])
    table.learner = Said(Foreseen(0.2, 0.2), Foreseen(0.1, 0.0))
    outcome = choose(Request(0.5, origin_site="plant-a"), table, NOW)
    assert isinstance(outcome, Decision)
    assert (outcome.target, outcome.reason) == ("t1", LEARNED)
    assert outcome.late == pytest.approx(0.01)
    assert outcome.spent == pytest.approx(0.01 / WEIGHTS["balanced"].budget)


@settings(max_examples=30, deadline=None)
@given(seeds)
@example(0)
def test_a_very_large_table_is_reordered_among_its_best(seed: int) -> None:
    rng = Random(seed)
    many = [
        Target(
            f"t{n}",
            "edge",
            "plant-a",
            rtt_s=rng.uniform(0.0, 0.1),
            service_s=0.1,
            usd=rng.uniform(0.0, 1.0),
            heard_at=NOW,
            ahead_at=NOW,
        )
        for n in range(LOOP + 5)
    ]
    table = believing(many, seed)
    assert isinstance(table.columns, Columns)
    for objective in ("latency", "balanced"):
        request = Request(1.0, objective=objective, draw=rng.getrandbits(64))
        safe, outcome = safe_choose(request, table, NOW), choose(request, table, NOW)
        assert isinstance(safe, Decision)
        assert isinstance(outcome, Decision)
        assert outcome.target in {verdict.target for verdict in safe.verdicts}


def test_the_model_remembers_no_more_requests_than_are_on_their_way() -> None:
    table = RoutingTable(TWINS)
    learner = table.learning()
    request = Request(1.0)
    sent = [table.sent("t0", request, NOW) for _ in range(4)]
    assert learner.under_way == 4
    table.answered(sent[0], NOW + 0.1, None, NOW)
    table.late(sent[1], NOW + 0.1, 2.0)
    table.ended(sent[2])
    table.ended(sent[2])
    assert learner.under_way == 1
    assert learner.lateness.outcomes == 2
