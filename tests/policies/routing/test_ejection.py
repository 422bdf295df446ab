"""Who fails more than the others is left alone for a while, and comes back by and by."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.ejection import FORGIVEN_S, TRIAL_ROOM, Attempt, EjectionRules, Ejector

NOW = 1000.0
NAMES = ("a", "b", "c", "d")
ALL = frozenset(NAMES)
RULES = EjectionRules()
NEVER_IN_A_ROW = EjectionRules(consecutive=10_000)


class Router:
    """An ejector that is asked in turn; a name in `up` can be reached."""

    def __init__(
        self, rules: EjectionRules | None = None, up: Collection[str] = ALL, now: float = NOW
    ) -> None:
        self.ejector = Ejector(rules)
        self.up = frozenset(up)
        self.now = now

    def try_(self, name: str, has_failed: bool | None, count: int = 1) -> None:
        for _ in range(count):
            self.end(self.ejector.sent(name), has_failed)

    def end(self, attempt: Attempt, has_failed: bool | None) -> None:
        self.ejector.ended(attempt, self.now, self.up, has_failed=has_failed)

    @property
    def ejected(self) -> frozenset[str]:
        return self.ejector.ejected(self.now, self.up)


# Who is ejected.


def test_failures_in_a_row_eject() -> None:
    router = Router()
    router.try_("a", True, RULES.consecutive - 1)
    assert not router.ejected
    assert router.ejector.is_quiet
    router.try_("a", True)
    assert router.ejected == {"a"}
    assert not router.ejector.is_quiet
    assert (router.ejector.ejections("a"), router.ejector.ejections("b")) == (1, 0)


def test_an_answer_in_between_begins_the_row_anew() -> None:
    router = Router()
    for _ in range(3):
        router.try_("a", True, RULES.consecutive - 1)
        router.try_("a", False)
    assert not router.ejected


def test_what_says_nothing_of_the_place_is_not_counted() -> None:
    router = Router()
    for _ in range(RULES.consecutive):
        router.try_("a", None, 50)
        assert not router.ejected
        router.try_("a", True)
    assert router.ejected == {"a"}


def test_failures_long_ago_are_no_part_of_a_row() -> None:
    router = Router()
    router.try_("a", True, RULES.consecutive - 1)
    router.now += 1.01 * RULES.window_s
    router.try_("a", True)
    assert not router.ejected


def test_a_share_of_failures_well_above_that_of_the_others_ejects() -> None:
    router = Router(NEVER_IN_A_ROW)
    for _ in range(20):
        router.try_("a", True)
        router.try_("a", False)
        router.try_("b", False, 3)
    assert router.ejected == {"a"}


def test_where_all_fail_as_much_nobody_is_ejected_for_the_share() -> None:
    router = Router(NEVER_IN_A_ROW)
    for _ in range(50):
        for name in NAMES:
            router.try_(name, True)
            router.try_(name, False)
    assert not router.ejected


def test_idle_places_are_neither_compared_nor_compared_with() -> None:
    router = Router(NEVER_IN_A_ROW)
    router.try_("b", False, RULES.fewest - 1)
    router.try_("a", True, 100)
    assert not router.ejected  # nobody to compare with
    router = Router(NEVER_IN_A_ROW)
    router.try_("b", False, 100)
    router.try_("a", True, RULES.fewest - 1)
    assert not router.ejected  # too few to say anything
    router.try_("a", True)
    assert router.ejected == {"a"}


def test_failures_of_long_ago_are_forgotten_in_the_share() -> None:
    router = Router(NEVER_IN_A_ROW)
    router.try_("b", False, RULES.fewest - 1)
    router.try_("a", True, 100)
    router.now += 1.01 * RULES.window_s
    router.try_("b", False, 100)
    router.try_("a", False, 100)
    router.try_("a", True)
    assert not router.ejected


def test_who_is_ejected_is_no_measure_for_the_others() -> None:
    router = Router(NEVER_IN_A_ROW)
    router.try_("c", False, 30)
    router.try_("a", True, 30)
    assert router.ejected == {"a"}
    for _ in range(10):
        router.try_("b", False)
        router.try_("b", True)
    assert router.ejected == {"a", "b"}


# How many.


@pytest.mark.parametrize(
    ("up", "max_share", "most"),
    [(1, 1.0, 0), (2, 0.5, 1), (2, 1.0, 1), (3, 0.5, 1), (4, 0.5, 2), (4, 1.0, 3), (3, 0.3, 0)],
)
def test_a_share_of_the_places_that_are_up_is_ejected_at_most_and_never_the_last(
    up: int, max_share: float, most: int
) -> None:
    router = Router(EjectionRules(max_share=max_share), NAMES[:up])
    for name in NAMES[:up]:
        router.try_(name, True, 50)
    assert len(router.ejected) == most


def test_a_place_that_is_down_is_told_by_other_means_and_counts_for_nothing() -> None:
    router = Router(up=("a", "b"))
    router.try_("c", True, 50)
    assert not router.ejected
    router.try_("a", True, 5)
    assert router.ejected == {"a"}


def test_who_is_ejected_comes_back_when_the_others_go_down() -> None:
    router = Router()
    router.try_("b", True, 5)
    router.now += 1.0
    router.try_("a", True, 5)
    assert router.ejected == {"a", "b"}
    router.up = frozenset({"a", "b", "c"})
    assert router.ejected == {"a"}  # who was ejected first is back first
    router.up = frozenset({"a"})
    assert not router.ejected


# How long.


def test_an_ejection_ends_by_the_clock_though_nobody_asked_meanwhile() -> None:
    router = Router()
    router.try_("a", True, 5)
    router.now += RULES.base_s - 0.01
    assert router.ejected == {"a"}
    router.now += 0.02
    assert not router.ejected


def test_each_repeat_takes_longer_up_to_a_limit() -> None:
    router = Router()
    router.try_("a", True, 5)
    lengths = []
    for _ in range(20):
        began = router.now
        while router.ejected:
            router.now += 0.5
        lengths.append(router.now - began)
        router.try_("a", True)  # the trial fails
    expected = [min(RULES.most_s, RULES.base_s * (n + 1)) for n in range(20)]
    assert lengths == expected


def test_repeats_are_forgiven_by_and_by() -> None:
    router = Router()
    for _ in range(4):
        router.try_("a", True, 5)
        router.now += RULES.most_s
        assert not router.ejected
        router.try_("a", False, 4)
    router.now += 3 * FORGIVEN_S
    router.try_("a", True, 5)
    router.now += 2 * RULES.base_s - 0.01
    assert router.ejected
    router.now += 0.02
    assert not router.ejected


# How it comes back.


def test_who_comes_back_gets_one_request_then_twice_as_many_each_time() -> None:
    router = Router()
    router.try_("a", True, 5)
    router.now += RULES.base_s
    first = router.ejector.sent("a")
    assert router.ejected == {"a"}  # until that has ended well
    router.end(first, False)
    second = router.ejector.sent("a")
    assert not router.ejected
    third = router.ejector.sent("a")
    assert router.ejected == {"a"}
    router.end(second, None)
    assert not router.ejected
    router.end(third, False)
    for _ in range(TRIAL_ROOM):
        router.try_("a", False)
    assert router.ejector.is_quiet


@pytest.mark.parametrize("rules", [RULES, NEVER_IN_A_ROW])
def test_who_has_passed_its_trial_begins_anew(rules: EjectionRules) -> None:
    router = Router(rules)
    router.try_("b", False, 50)
    router.try_("a", True, 20)
    assert router.ejected == {"a"}
    router.now += RULES.base_s
    router.try_("a", False, 4)
    assert router.ejector.is_quiet
    router.try_("a", True, RULES.consecutive - 1)
    assert not router.ejected


def test_one_failure_on_trial_ejects_again() -> None:
    router = Router()
    router.try_("a", True, 5)
    router.now += RULES.base_s
    router.try_("a", False)
    router.try_("a", True)
    assert router.ejected == {"a"}
    assert router.ejector.ejections("a") == 2


def test_what_was_sent_before_an_ejection_says_nothing_after_it() -> None:
    router = Router()
    old = [router.ejector.sent("a") for _ in range(20)]
    for attempt in old[:10]:
        router.end(attempt, True)
    assert router.ejector.ejections("a") == 1
    router.now += RULES.base_s
    assert not router.ejected
    for attempt in old[10:]:
        router.end(attempt, True)
    assert not router.ejected
    assert router.ejector.ejections("a") == 1


def test_who_is_asked_as_the_last_resort_stays_ejected_until_its_time_has_come() -> None:
    router = Router()
    router.try_("a", True, 5)
    router.try_("a", False, 50)
    assert router.ejected == {"a"}
    router.try_("a", True, 50)
    assert router.ejector.ejections("a") == 1


# Whatever happens.

events = st.lists(
    st.tuples(
        st.sampled_from(["send", "fail", "answer", "nothing", "wait", "up"]),
        st.sampled_from(NAMES),
        st.integers(0, 200),
    ),
    max_size=120,
)
some_rules = st.builds(
    EjectionRules,
    consecutive=st.integers(1, 4),
    margin=st.sampled_from([0.0, 0.3]),
    fewest=st.integers(1, 5),
    max_share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)


@settings(max_examples=200, deadline=None)
@given(some_rules, events)
def test_whatever_happens_the_share_holds_somebody_is_left_and_all_come_back(
    rules: EjectionRules, happened: list[tuple[str, str, int]]
) -> None:
    router = Router(rules)
    under_way: list[Attempt] = []
    for what, name, number in happened:
        match what:
            case "send":
                under_way.append(router.ejector.sent(name))
            case "wait":
                router.now += number / 8
            case "up":
                router.up = frozenset(n for i, n in enumerate(NAMES) if number >> i & 1)
            case _ if under_way:
                outcome = {"fail": True, "answer": False}.get(what)
                router.end(under_way.pop(number % len(under_way)), outcome)
        away = router.ejected & router.up
        assert len(away) <= rules.max_share * len(router.up)
        assert len(away) < len(router.up) or not router.up
    for attempt in under_way:
        router.end(attempt, None)
    router.now += rules.most_s
    assert not router.ejected


@settings(max_examples=100, deadline=None)
@given(events)
def test_nobody_is_ejected_who_never_failed(happened: list[tuple[str, str, int]]) -> None:
    router = Router(EjectionRules(consecutive=1, margin=0.3, fewest=1, max_share=1.0))
    for what, name, number in happened:
        router.now += number / 64
        router.try_(name, what == "fail" and name != "a")
        assert router.ejector.ejections("a") == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"consecutive": 0}, "at least 1"),
        ({"fewest": 0}, "at least 1"),
        ({"margin": 1.5}, "from 0 to 1"),
        ({"max_share": -0.1}, "from 0 to 1"),
        ({"window_s": 0.0}, "above 0"),
        ({"base_s": 200.0}, "no less than"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EjectionRules(**wrong)
