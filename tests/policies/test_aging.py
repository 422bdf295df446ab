"""Deadlines order, priority is strict for a while, waiting makes up for it, the order stays."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor, inf

from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.aging import GRACE_S, MAX_LEVEL, PATIENCE_S, STEP_S, Urgency, level, urgency

MAX_PRIORITY = 2**32 - 1
priorities = st.one_of(st.integers(0, 9), st.integers(0, MAX_PRIORITY), st.integers(0, 2**40))
starts = st.sampled_from([0.0, -0.125, -1e6, 86_400.0, 2.0**30])


def ticks(least_s: float, most_s: float) -> st.SearchStrategy[float]:
    """Give times whose sums are exact."""
    return st.integers(round(least_s * 1024), round(most_s * 1024)).map(lambda n: n / 1024)


leeway = st.one_of(st.just(inf), st.just(0.5), ticks(-2.0, 4.0))  # to the deadline, on arrival
service_times = ticks(4 / 1024, 0.5)


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
        return (level_of(self.priority) + 1) * STEP_S


def level_of(priority: int) -> int:
    """Count digits, as one would by hand."""
    return priority if priority < 8 else min(MAX_LEVEL, len(f"{priority:b}") + 4)


def rank_at(
    now: float, priority: int, queued_at: float, deadline: float, arrival: int
) -> tuple[float, int, int]:
    """Return the order by definition: what is left of the patience with it, and its steps."""
    waited_s = now - queued_at
    left_s = max(0.0, min(deadline, queued_at + PATIENCE_S) - queued_at) - waited_s
    return left_s + level_of(priority) * STEP_S, priority, arrival


@st.composite
def queues(draw: st.DrawFn, spread_s: float = 12.0) -> list[Waiting]:
    """Requests in the order they came, with a clock that may be anywhere."""
    start = draw(starts)
    offsets = sorted(draw(st.lists(ticks(0.0, spread_s), min_size=2, max_size=12)))
    return [
        Waiting(draw(priorities), start + offset, start + offset + draw(leeway), arrival)
        for arrival, offset in enumerate(offsets)
    ]


@settings(max_examples=200)
@given(queues(), ticks(0.0, 1e5))
def test_the_order_on_arrival_is_the_order_by_definition_at_any_time(
    queue: list[Waiting], later_s: float
) -> None:
    now = queue[-1].queued_at + later_s
    by_definition = sorted(
        queue, key=lambda r: rank_at(now, r.priority, r.queued_at, r.deadline, r.arrival)
    )
    assert sorted(queue, key=lambda request: request.urgency) == by_definition


@settings(max_examples=200)
@given(queues(spread_s=2.0), priorities)
def test_of_one_priority_the_earlier_deadline_is_first_whenever_it_came(
    queue: list[Waiting], priority: int
) -> None:
    hasty = [
        Waiting(priority, r.queued_at, r.deadline, r.arrival)
        for r in queue
        if 0.0 <= r.deadline - r.queued_at <= PATIENCE_S
    ]
    assert sorted(hasty, key=lambda request: request.urgency) == sorted(
        hasty, key=lambda request: (request.deadline, request.arrival)
    )


@settings(max_examples=200)
@given(queues(), priorities)
def test_who_is_in_no_hurry_goes_by_arrival(queue: list[Waiting], priority: int) -> None:
    patient = [Waiting(priority, r.queued_at, r.queued_at + 9.0, r.arrival) for r in queue]
    assert sorted(patient, key=lambda request: request.urgency) == patient


@settings(max_examples=200)
@given(priorities, starts, leeway, priorities, leeway, ticks(0.0, 100.0))
@example(MAX_PRIORITY, 0.25, inf, 0, -2.0, 0.0)
@example(1, -0.125, inf, 0, -2.0, 0.0)
def test_nobody_is_overtaken_by_who_comes_a_bounded_time_later(
    priority: int,
    queued_at: float,
    left_s: float,
    other_priority: int,
    other_left_s: float,
    more_s: float,
) -> None:
    first = Waiting(priority, queued_at, queued_at + left_s, 1)
    came_at = queued_at + first.bound_s + more_s
    other = Waiting(other_priority, came_at, came_at + other_left_s, 2)
    assert first.urgency < other.urgency
    assert first.bound_s <= (MAX_LEVEL + 1) * STEP_S < 60.0


@settings(max_examples=200)
@given(queues())
def test_a_higher_level_never_passes_a_lower_one_that_came_before_or_just_after_it(
    queue: list[Waiting],
) -> None:
    for higher in queue:
        for lower in queue:
            if (
                level_of(lower.priority) < level_of(higher.priority)
                and lower.queued_at < higher.queued_at + GRACE_S
            ):
                assert lower.urgency < higher.urgency


def test_a_level_is_worth_exactly_one_step() -> None:
    """Aging is no quicker than it says, so that priority means something."""
    levels = ((1, 1), (2, 2), (3, 3), (7, 7), (8, 8), (15, 8), (16, 9), (MAX_PRIORITY, 36))
    for priority, steps in (*levels, (2**70, 36)):
        assert level(priority) == steps
        old = urgency(priority, 0.0, inf, 1)
        assert urgency(0, steps * STEP_S, PATIENCE_S + steps * STEP_S - 0.001, 2) < old
        assert urgency(0, steps * STEP_S, inf, 2) < old
        assert urgency(0, steps * STEP_S + 0.001, inf, 2) > old


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
def test_who_is_served_leaves_nobody_waiting_of_a_lower_level_who_came_before_it(
    queue: list[Waiting], service_s: float
) -> None:
    for first, waiting in served(queue, service_s):
        for other in waiting:
            if other.queued_at <= first.queued_at:
                assert level_of(first.priority) <= level_of(other.priority)


@settings(max_examples=60)
@given(
    st.one_of(st.just(MAX_PRIORITY), priorities),
    ticks(-1.0, 1.0),
    st.integers(1, 6),
    ticks(32 / 1024, 0.5),
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
