"""Priority is strict inside a window, waiting makes up for it, and the order never changes."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, inf

from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.aging import AGING_S, MAX_LEVEL, Urgency, urgency

MAX_PRIORITY = 2**32 - 1
priorities = st.one_of(st.integers(0, 9), st.integers(0, MAX_PRIORITY), st.integers(0, 2**40))
deadlines = st.one_of(st.just(inf), st.floats(-1e9, 1e9), st.sampled_from([1.0, 2.0]))
starts = st.sampled_from([0.0, -0.1, -1e6, 86_400.0, 1e9, 2.0**53, -(2.0**60), 1e300])
moments = st.builds(float.__add__, starts, st.floats(0.0, 12.0))
service_times = st.integers(4, 512).map(lambda n: n / 1024)  # sums of them are exact


@dataclass(frozen=True)
class Waiting:
    priority: int
    queued_at: float
    deadline: float
    arrival: int

    @property
    def urgency(self) -> Urgency:
        return urgency(self.priority, self.queued_at, self.deadline, self.arrival)

    @property
    def bound_s(self) -> float:
        """How much later one may come who overtakes it."""
        return (level_of(self.priority) + 1) * AGING_S


def level_of(priority: int) -> int:
    return min(MAX_LEVEL, len(f"{priority:b}") if priority else 0)


def window_of(moment: float) -> int:
    return floor(moment / AGING_S)


def rank_at(
    now: float, priority: int, queued_at: float, deadline: float, arrival: int
) -> tuple[int, int, float, int]:
    """Return the order by definition: a level less for each window that began meanwhile."""
    aged = level_of(priority) - (window_of(now) - window_of(queued_at))
    return aged, priority, deadline, arrival


@st.composite
def queues(draw: st.DrawFn, spread_s: float = 12.0) -> list[Waiting]:
    """Requests in the order they came, with a clock that may be anywhere."""
    start = draw(starts)
    offsets = sorted(draw(st.lists(st.floats(0.0, spread_s), min_size=2, max_size=12)))
    return [
        Waiting(draw(priorities), start + offset, draw(deadlines), arrival)
        for arrival, offset in enumerate(offsets)
    ]


@settings(max_examples=200)
@given(queues(), st.floats(0.0, 1e6))
def test_the_order_on_arrival_is_the_order_by_definition_at_any_time(
    queue: list[Waiting], later_s: float
) -> None:
    now = queue[-1].queued_at + later_s
    by_definition = sorted(
        queue, key=lambda r: rank_at(now, r.priority, r.queued_at, r.deadline, r.arrival)
    )
    assert sorted(queue, key=lambda request: request.urgency) == by_definition


@settings(max_examples=200)
@given(queues(spread_s=AGING_S / 4))
def test_inside_a_window_it_is_priority_then_deadline_then_arrival(queue: list[Waiting]) -> None:
    window = window_of(queue[0].queued_at)
    together = [request for request in queue if window_of(request.queued_at) == window]
    assert sorted(together, key=lambda request: request.urgency) == sorted(
        together, key=lambda request: (request.priority, request.deadline, request.arrival)
    )


@settings(max_examples=200)
@given(priorities, moments, deadlines, priorities, deadlines, st.floats(0.0, 100.0))
@example(MAX_PRIORITY, 0.2, inf, 0, -inf, 0.0)
@example(1, -0.001, inf, 0, -inf, 0.0)
def test_nobody_is_overtaken_by_who_comes_a_bounded_time_later(
    priority: int,
    queued_at: float,
    deadline: float,
    other_priority: int,
    other_deadline: float,
    more_s: float,
) -> None:
    first = Waiting(priority, queued_at, deadline, 1)
    other = Waiting(other_priority, queued_at + first.bound_s + more_s, other_deadline, 2)
    if other.queued_at - queued_at >= first.bound_s:  # not so where floats are seconds apart
        assert first.urgency < other.urgency
    assert first.bound_s <= 33 * AGING_S < 10.0


@settings(max_examples=200)
@given(queues())
def test_a_lower_priority_never_passes_a_higher_one_that_came_in_its_window_or_before(
    queue: list[Waiting],
) -> None:
    for higher in queue:
        for lower in queue:
            if higher.priority < lower.priority and (
                window_of(higher.queued_at) <= window_of(lower.queued_at)
            ):
                assert higher.urgency < lower.urgency


def test_a_level_is_worth_exactly_one_window() -> None:
    """Aging is no quicker than it says, so that priority means something."""
    for priority, level in ((1, 1), (2, 2), (3, 2), (4, 3), (MAX_PRIORITY, 32), (2**70, 32)):
        old = urgency(priority, 0.0, 0.0, 1)
        assert urgency(0, level * AGING_S, inf, 2) < old
        assert urgency(0, (level + 1) * AGING_S, -inf, 2) > old


# A server that runs one request at a time, the most urgent first.


def served(
    arrivals: Sequence[Waiting], service_s: float
) -> Iterator[tuple[Waiting, list[Waiting]]]:
    """Give each request as it is served, and those who wait then."""
    coming = sorted(arrivals, key=lambda request: request.queued_at)
    waiting: list[tuple[Urgency, Waiting]] = []
    now = -inf
    while coming or waiting:
        if not waiting:
            now = max(now, coming[0].queued_at)
        while coming and coming[0].queued_at <= now:
            request = coming.pop(0)
            heapq.heappush(waiting, (request.urgency, request))
        _, first = heapq.heappop(waiting)
        yield first, [request for _, request in waiting]
        now += service_s


@settings(max_examples=100)
@given(queues(), service_times)
def test_who_is_served_leaves_nobody_of_its_window_or_before_waiting_with_a_higher_priority(
    queue: list[Waiting], service_s: float
) -> None:
    for first, waiting in served(queue, service_s):
        for other in waiting:
            if window_of(other.queued_at) <= window_of(first.queued_at):
                assert first.priority <= other.priority
            if window_of(other.queued_at) == window_of(first.queued_at):
                assert (first.priority, first.deadline) <= (other.priority, other.deadline)


@settings(max_examples=60)
@given(
    st.one_of(st.just(MAX_PRIORITY), priorities),
    st.integers(0, 2048).map(lambda n: n / 1024 - 1.0),
    st.integers(1, 6),
    service_times,
)
def test_callers_who_always_have_another_urgent_request_starve_nobody(
    priority: int, queued_at: float, callers: int, service_s: float
) -> None:
    """Each of them sends at priority 0 again as soon as it was answered."""
    victim = Waiting(priority, queued_at, inf, 0)
    waiting = [(victim.urgency, victim)]
    now, arrival = queued_at, 0

    def send() -> None:
        nonlocal arrival
        arrival += 1
        urgent = Waiting(0, now, now, arrival)
        heapq.heappush(waiting, (urgent.urgency, urgent))

    for _ in range(callers):
        send()
    while (first := heapq.heappop(waiting)[1]) is not victim:
        now += service_s
        assert now <= queued_at + victim.bound_s + callers * service_s
        send()
        assert first.queued_at - queued_at < victim.bound_s


@settings(max_examples=60)
@given(
    st.sampled_from([0, 1, 3, 1000, MAX_PRIORITY]),
    st.integers(1, 8),
    service_times,
    st.integers(0, 255),
)
def test_a_flood_of_urgent_requests_delays_others_by_no_more_than_came_in_a_bounded_time(
    priority: int, pace: int, service_s: float, offset: int
) -> None:
    """More comes than can be served; who came after the bound is served later all the same."""
    victim = Waiting(priority, offset / 1024, inf, 0)
    step_s = service_s / pace
    count = floor(victim.bound_s / step_s) + 20
    if count > 3000:
        step_s, count = victim.bound_s / 3000, 3020
    flood = [
        Waiting(0, victim.queued_at + i * step_s, victim.queued_at, i + 1) for i in range(count)
    ]
    before = []
    for first, _ in served([victim, *flood], service_s):
        if first is victim:
            break
        before.append(first)
    assert all(r.queued_at - victim.queued_at < victim.bound_s for r in before)
