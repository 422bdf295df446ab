from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from edge_runtime.engine.queue import Entry, RequestQueue
from policies.aging import GRACE_S, PATIENCE_S, STEP_S
from tests.policies.test_aging import MAX_PRIORITY, rank_at

CAPACITY = 12


@dataclass(frozen=True)
class Item:
    bucket: str
    rows: int
    priority: int
    queued_at: float
    deadline: float
    arrival: int


class Slow:
    """The same queue as a list that is sorted, by how they have aged until then, on demand."""

    def __init__(self) -> None:
        self.waiting: list[Item] = []
        self.now = 0.0

    def sorted(self, bucket: str | None = None) -> list[Item]:
        return sorted(
            (item for item in self.waiting if bucket in (None, item.bucket)),
            key=self.rank,
        )

    def rank(self, item: Item) -> tuple[float, int, int]:
        return rank_at(self.now, item.priority, item.queued_at, item.deadline, item.arrival)

    def take_batch(self, bucket: str, max_rows: int) -> list[Item]:
        taken: list[Item] = []
        for item in self.sorted(bucket):
            if taken and sum(other.rows for other in taken) + item.rows > max_rows:
                break
            taken.append(item)
            self.waiting.remove(item)
        return taken


PUSHES = st.tuples(
    st.sampled_from("aabc"),
    st.integers(1, 5),
    st.sampled_from([0, 1, 2, 3, 9, MAX_PRIORITY]),
    st.sampled_from([0.125, 0.5, 2.0, inf]),
)


class QueueMachine(RuleBasedStateMachine):
    """Every sequence of pushes, removals, batches and waits leaves the queue as the slow one."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: RequestQueue[Item] = RequestQueue(CAPACITY)
        self.slow = Slow()
        self.entries: list[Entry[Item]] = []

    @initialize(now=st.sampled_from([0.0, -1.125, 86_400.25]))
    def start(self, now: float) -> None:
        self.slow.now = now

    @rule(seconds=st.sampled_from([0.0625, 0.125, GRACE_S, 0.75, 40 * STEP_S]))
    def wait(self, seconds: float) -> None:
        self.slow.now += seconds

    @rule(some=st.lists(PUSHES, min_size=1, max_size=4))
    def push(self, some: list[tuple[str, int, int, float]]) -> None:
        for bucket, rows, priority, deadline in some:
            self.push_one(bucket, rows, priority, deadline)

    def push_one(self, bucket: str, rows: int, priority: int, deadline: float) -> None:
        now, is_full = self.slow.now, len(self.slow.waiting) == CAPACITY
        deadline += now
        item = Item(bucket, rows, priority, now, deadline, len(self.entries))
        assert self.queue.is_full == is_full
        with pytest.raises(IndexError) if is_full else nullcontext():
            entry = self.queue.push(
                item, bucket=bucket, rows=rows, priority=priority, deadline=deadline, now=now
            )
            self.entries.append(entry)
            self.slow.waiting.append(item)

    @precondition(lambda self: self.slow.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.slow.waiting))
        assert self.queue.remove(self.entries[item.arrival])
        self.slow.waiting.remove(item)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def remove_once_more(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        if entry.item not in self.slow.waiting:
            assert not self.queue.remove(entry)

    @precondition(lambda self: len(self.slow.waiting) < CAPACITY)
    @rule(bucket=st.sampled_from("abc"))
    def come_and_go(self, bucket: str) -> None:
        """So many leave that the queue gets rid of the places that they have left."""
        for _ in range(100):
            self.push_one(bucket, 1, MAX_PRIORITY, inf)
            assert self.queue.remove(self.entries[-1])
            self.slow.waiting.pop()

    @precondition(lambda self: self.slow.waiting)
    @rule(max_rows=st.integers(1, 8), data=st.data())
    def take_batch(self, max_rows: int, data: st.DataObject) -> None:
        heads = sorted(self.queue.heads())
        head = data.draw(st.sampled_from(heads))
        taken = [entry.item for entry in self.queue.take_batch(head, max_rows)]
        assert taken == self.slow.take_batch(head.item.bucket, max_rows)

    @precondition(lambda self: self.slow.waiting)
    @rule(limit=st.integers(1, 9))
    def rows_behind(self, limit: int) -> None:
        head = self.queue.head()
        assert head is not None
        rows = sum(item.rows for item in self.slow.sorted(head.item.bucket))
        assert min(limit, self.queue.rows_behind(head, limit)) == min(limit, rows)

    @rule(priority=st.sampled_from([0, 1, 9]), left_s=st.sampled_from([0.0, 0.25, 0.75, inf]))
    def rows_before(self, priority: int, left_s: float) -> None:
        now = self.slow.now
        mine = rank_at(now, priority, now, now + left_s, 1 << 40)
        before = [i for i in self.slow.waiting if self.slow.rank(i) < mine]
        key = self.queue.key_of(priority, now, now + left_s)
        assert self.queue.rows_before(key) == sum(item.rows for item in before)
        if priority == 0 and left_s <= PATIENCE_S:
            assert self.queue.rows_by_slack(now, (left_s, inf)) == [
                sum(item.rows for item in before),
                sum(item.rows for item in self.slow.waiting),
            ]

    @invariant()
    def it_is_as_the_slow_one(self) -> None:
        assert len(self.queue) == len(self.slow.waiting)
        head, expected = self.queue.head(), self.slow.sorted()[:1]
        assert ([head.item] if head else []) == expected
        buckets = {item.bucket for item in self.slow.waiting}
        firsts = {bucket: self.slow.sorted(bucket)[0] for bucket in buckets}
        assert {head.item.bucket: head.item for head in self.queue.heads()} == firsts


QueueMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase


def _push(queue: RequestQueue[str], item: str, bucket: str = "a", rows: int = 1) -> Entry[str]:
    return queue.push(item, bucket=bucket, rows=rows, priority=0, deadline=1.0, now=0.0)


def test_equal_requests_leave_in_the_order_they_came() -> None:
    queue: RequestQueue[str] = RequestQueue(10)
    for item in "first", "second", "third":
        _push(queue, item)
    head = queue.head()
    assert head is not None
    assert [entry.item for entry in queue.take_batch(head, 10)] == ["first", "second", "third"]


def test_a_request_larger_than_a_batch_goes_alone() -> None:
    queue: RequestQueue[str] = RequestQueue(10)
    large = _push(queue, "large", rows=100)
    _push(queue, "small")
    assert queue.take_batch(large, 8) == [large]
    assert len(queue) == 1


def test_cancelled_requests_do_not_pile_up_behind_a_patient_one() -> None:
    queue: RequestQueue[str] = RequestQueue(10)
    _push(queue, "patient")
    for bucket in "ab":
        for _ in range(1000):
            later = queue.push("hasty", bucket=bucket, rows=1, priority=9, deadline=9.0, now=0.0)
            queue.remove(later)
    held = sum(len(heap) for heap in queue._heaps.values())
    assert held < 100
    assert len(queue) == 1
