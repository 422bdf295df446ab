from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from policies.routing.replicas import by_length

counts = st.lists(st.integers(0, 5), max_size=20)
draws = st.integers(0, 2**64 - 1)


@given(counts, draws)
def test_all_are_ranked_and_shorter_queues_come_first(under_way: list[int], draw: int) -> None:
    order = by_length(under_way, draw)
    assert sorted(order) == list(range(len(under_way)))
    ranked = [under_way[index] for index in order]
    assert ranked == sorted(under_way)


@given(counts, draws)
def test_the_same_is_ranked_the_same(under_way: list[int], draw: int) -> None:
    assert by_length(under_way, draw) == by_length(under_way, draw)


@given(st.integers(2, 12), st.integers(0, 2**32))
def test_each_of_equal_ones_is_first_as_often(count: int, begin: int) -> None:
    firsts = Counter(by_length([3] * count, begin + draw)[0] for draw in range(2 * count))
    assert firsts == dict.fromkeys(range(count), 2)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.lists(draws, max_size=60))
def test_queues_that_only_grow_become_even(begin: list[int], many: list[int]) -> None:
    queues = list(begin)
    for draw in many:
        queues[by_length(queues, draw)[0]] += 1
    grown = [queue for queue, first in zip(queues, begin, strict=True) if queue > first]
    assert not grown or max(grown) <= min(queues) + 1
