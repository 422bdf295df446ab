"""Who makes room: never one that must stay, the least recently used first, no more than needed."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from policies.eviction import Resident, victims

SIZES = st.integers(0, 100)


@st.composite
def models(draw: st.DrawFn) -> list[Resident]:
    """Loaded models with names of their own, in any order; some were used at the same time."""
    count = draw(st.integers(0, 7))
    found = [
        Resident(
            name=f"m{number}",
            size_bytes=draw(SIZES),
            used_at=float(draw(st.integers(0, 4))),
            is_pinned=draw(st.booleans()),
            is_busy=draw(st.booleans()),
        )
        for number in range(count)
    ]
    return draw(st.permutations(found))


def movable(residents: list[Resident]) -> list[Resident]:
    return [resident for resident in residents if not resident.is_pinned and not resident.is_busy]


def left_bytes(residents: list[Resident], gone: list[str]) -> int:
    return sum(resident.size_bytes for resident in residents if resident.name not in gone)


LIMITS = st.integers(1, 300)


@given(models(), SIZES, LIMITS)
def test_one_that_is_pinned_or_busy_never_goes(
    residents: list[Resident], needed: int, limit: int
) -> None:
    chosen = victims(residents, needed, limit) or []
    assert set(chosen) <= {resident.name for resident in movable(residents)}
    assert len(set(chosen)) == len(chosen)


@given(models(), SIZES, LIMITS)
def test_what_is_chosen_makes_room(residents: list[Resident], needed: int, limit: int) -> None:
    chosen = victims(residents, needed, limit)
    if chosen is not None:
        assert left_bytes(residents, chosen) + needed <= limit


@given(models(), SIZES, LIMITS)
def test_nothing_is_chosen_exactly_when_all_that_may_go_would_not_be_enough(
    residents: list[Resident], needed: int, limit: int
) -> None:
    staying = sum(
        resident.size_bytes for resident in residents if resident not in movable(residents)
    )
    assert (victims(residents, needed, limit) is None) == (staying + needed > limit)


@given(models(), SIZES, LIMITS)
def test_the_least_recently_used_go_first_and_none_is_passed_over(
    residents: list[Resident], needed: int, limit: int
) -> None:
    chosen = victims(residents, needed, limit) or []
    in_order = sorted(movable(residents), key=lambda resident: (resident.used_at, resident.name))
    assert chosen == [resident.name for resident in in_order[: len(chosen)]]


@given(models(), SIZES, LIMITS)
def test_without_the_last_of_them_there_would_be_no_room(
    residents: list[Resident], needed: int, limit: int
) -> None:
    chosen = victims(residents, needed, limit)
    for fewer in range(len(chosen or ())):
        assert left_bytes(residents, (chosen or [])[:fewer]) + needed > limit


@given(models(), SIZES, st.integers(0, 300))
def test_the_order_in_which_they_are_named_does_not_matter(
    residents: list[Resident], needed: int, limit: int
) -> None:
    assert victims(residents[::-1], needed, limit) == victims(residents, needed, limit)


@given(models(), SIZES)
def test_without_a_limit_nobody_goes(residents: list[Resident], needed: int) -> None:
    assert victims(residents, needed, 0) == []


@given(models(), SIZES, LIMITS)
def test_more_room_never_costs_more_of_them(
    residents: list[Resident], needed: int, limit: int
) -> None:
    before, after = victims(residents, needed, limit), victims(residents, needed, limit + 10)
    if before is not None:
        assert after is not None
        assert after == before[: len(after)]


@given(models(), SIZES, LIMITS, st.integers(0, 6))
def test_using_one_again_never_sends_it_out_earlier(
    residents: list[Resident], needed: int, limit: int, number: int
) -> None:
    name = f"m{number}"
    used = [replace(r, used_at=9.0) if r.name == name else r for r in residents]
    before, after = victims(residents, needed, limit), victims(used, needed, limit)
    assert (before is None) == (after is None)
    if before is not None and name not in before:
        assert after is not None
        assert name not in after


def test_a_search_through_every_choice_finds_none_that_is_shorter_in_that_order() -> None:
    residents = [Resident(f"m{n}", n + 1, float(n)) for n in range(5)]  # 15 bytes in all
    for needed in range(1, 11):
        chosen = victims(residents, needed, 10)
        assert chosen is not None
        possible = [
            list(names)
            for count in range(6)
            for names in combinations([resident.name for resident in residents], count)
            if left_bytes(residents, list(names)) + needed <= 10
        ]
        in_order = [names for names in possible if names == [f"m{n}" for n in range(len(names))]]
        assert chosen == min(in_order, key=len)
