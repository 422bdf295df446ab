"""A model is believed while it is better than the plain estimate, and not a moment longer."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.context import NAMES, Context
from policies.routing.learner import ENOUGH, Learner, Trust

anything = st.floats(allow_nan=True, allow_infinity=True)


def at_a_place(busy: float, place_s: float = 0.1, late: float = 0.3) -> Context:
    """Return a context in which a busy place takes longer than is estimated."""
    figures = [0.0] * len(NAMES)
    figures[NAMES.index("one")] = 1.0
    figures[NAMES.index("busy")] = busy
    return Context(tuple(figures), 0.01, place_s, 0.1, late)


def teach(learner: Learner, count: int, rng: Random, *, is_reversed: bool = False) -> None:
    """Let busy places be slow and late, or the idle ones."""
    for ticket in range(count):
        busy = float(rng.random() < 0.5)
        learner.sent(ticket, at_a_place(busy))
        is_slow = (busy > 0.5) != is_reversed
        learner.saw(ticket, 0.25 if is_slow else 0.06, is_late=is_slow)


def test_it_is_believed_when_it_has_learned_where_the_estimate_is_wrong() -> None:
    learner = Learner()
    assert not learner.is_believed("balanced")
    teach(learner, 3 * ENOUGH, Random(1))
    assert learner.is_believed("balanced")
    idle, busy = learner.foresee([at_a_place(0.0), at_a_place(1.0)])
    assert idle.expected_s < 0.11 < busy.expected_s
    assert idle.late < 0.1
    assert busy.late > 0.9


def test_lateness_is_no_matter_where_only_the_delay_counts() -> None:
    learner = Learner()
    rng = Random(1)
    for ticket in range(3 * ENOUGH):
        busy = float(rng.random() < 0.5)
        learner.sent(ticket, at_a_place(busy, late=0.0))
        learner.saw(ticket, 0.25 if busy else 0.06, is_late=False)
    assert learner.is_believed("latency")
    assert not learner.is_believed("balanced")


def test_a_few_outcomes_are_not_enough_however_good_it_was() -> None:
    learner = Learner()
    teach(learner, ENOUGH - 1, Random(1))
    assert learner.lateness.ratio < 0.9
    assert not learner.is_believed("balanced")


def test_it_is_doubted_when_the_world_turns_round_and_comes_back_when_it_has_learned_that() -> None:
    learner = Learner()
    rng = Random(2)
    teach(learner, 3 * ENOUGH, rng)
    assert learner.is_believed("balanced")
    teach(learner, ENOUGH, rng, is_reversed=True)
    assert not learner.is_believed("balanced")
    for _ in range(200):
        teach(learner, ENOUGH, rng, is_reversed=True)
        if learner.is_believed("balanced"):
            break
    assert learner.is_believed("balanced")
    idle, busy = learner.foresee([at_a_place(0.0), at_a_place(1.0)])
    assert busy.late < idle.late


def test_where_the_estimate_is_right_the_model_is_not_needed() -> None:
    learner = Learner()
    rng = Random(3)
    for ticket in range(4 * ENOUGH):
        learner.sent(ticket, at_a_place(rng.random()))
        learner.saw(ticket, 0.1 * math.exp(rng.gauss(0.0, 0.1)), is_late=rng.random() < 0.3)
    assert not learner.is_believed("balanced")


def test_a_hopeful_guess_is_better_and_less_so_where_much_is_known() -> None:
    learner = Learner()

    def hope() -> float:
        plain = learner.foresee([at_a_place(0.5)])[0]
        hopeful = learner.foresee([at_a_place(0.5)], is_hopeful=True)[0]
        assert hopeful.late <= plain.late
        return plain.expected_s - hopeful.expected_s

    before = hope()
    teach(learner, 3 * ENOUGH, Random(4))
    assert 0.0 < hope() < before


def test_what_is_certain_stays_so_whatever_the_model_says() -> None:
    learner = Learner()
    teach(learner, 3 * ENOUGH, Random(5))
    assert learner.foresee([at_a_place(0.0, late=1.0)])[0].late == 1.0


def test_what_ended_without_an_answer_teaches_nothing() -> None:
    learner = Learner()
    learner.sent(1, at_a_place(1.0))
    learner.ended(1)
    learner.saw(1, 0.5, is_late=True)
    learner.saw(2, 0.5, is_late=True)
    assert learner.lateness.outcomes == 0
    assert learner.under_way == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-3.0, 3.0), anything, anything, st.booleans()), min_size=1, max_size=80
    )
)
def test_nothing_that_is_no_number_gets_in(
    told: list[tuple[float, float, float, bool]],
) -> None:
    learner = Learner()
    for ticket, (busy, place_s, actual_s, is_late) in enumerate(told):
        learner.sent(ticket, at_a_place(busy, place_s))
        learner.saw(ticket, actual_s, is_late=is_late)
    assert learner.under_way == 0
    for hopeful in (False, True):
        found = learner.foresee([at_a_place(1.0)], is_hopeful=hopeful)[0]
        assert math.isfinite(found.expected_s)
        assert found.expected_s >= 0.0
        assert 0.0 <= found.late <= 1.0
    unknown = learner.foresee([at_a_place(1.0, math.nan), at_a_place(1.0, math.inf)])
    assert [found.expected_s for found in unknown] == [math.inf, math.inf]


def test_trust_does_not_waver_between_its_limits() -> None:
    trust = Trust()
    for _ in range(ENOUGH):
        trust.saw(0.985, 1.0)
    assert not trust.is_given
    for _ in range(ENOUGH):
        trust.saw(0.9, 1.0)
    assert trust.is_given
    for _ in range(10 * ENOUGH):
        trust.saw(0.985, 1.0)
    assert trust.is_given
    for _ in range(10 * ENOUGH):
        trust.saw(1.01, 1.0)
    assert not trust.is_given


def test_an_error_that_is_no_number_is_not_believed() -> None:
    trust = Trust()
    for _ in range(ENOUGH):
        trust.saw(0.5, 1.0)
    assert trust.is_given
    trust.saw(math.nan, 1.0)
    assert not trust.is_given
    nothing = Trust()
    assert nothing.ratio == 1.0
    nothing.saw(1.0, 0.0)
    assert nothing.ratio == math.inf
