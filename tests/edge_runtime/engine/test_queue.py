from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_runtime.engine.queue import Entry, RequestQueue

CAPACITY = 12
Item = tuple[int, float, int]  # priority, deadline, arrival


class Slow:
    """The same queue as a list that is sorted for every question."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Item, str, int]] = []

    def head(self) -> tuple[Item, str, int] | None:
        return min(self.waiting, default=None)

    def take_batch(self, bucket: str, max_rows: int) -> list[Item]:
        taken: list[Item] = []
        rows = 0
        for entry in sorted(e for e in self.waiting if e[1] == bucket):
            if taken and rows + entry[2] > max_rows:
                break
            taken.append(entry[0])
            rows += entry[2]
            self.waiting.remove(entry)
        return taken


class QueueMachine(RuleBasedStateMachine):
    """Every sequence of pushes, removals and batches leaves the queue as the slow one."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: RequestQueue[Item] = RequestQueue(CAPACITY)
        self.slow = Slow()
        self.entries: list[Entry[Item]] = []
        self.arrivals = 0

    @rule(
        bucket=st.sampled_from("abc"),
        rows=st.integers(1, 5),
        priority=st.integers(0, 2),
        deadline=st.sampled_from([1.0, 2.0, 3.0]),
    )
    def push(self, bucket: str, rows: int, priority: int, deadline: float) -> None:
        item = (priority, deadline, self.arrivals)
        self.arrivals += 1
        if len(self.slow.waiting) == CAPACITY:
            assert self.queue.is_full
            with pytest.raises(IndexError):
                self.queue.push(item, bucket=bucket, rows=rows, priority=priority, deadline=1.0)
            return
        entry = self.queue.push(
            item, bucket=bucket, rows=rows, priority=priority, deadline=deadline
        )
        self.entries.append(entry)
        self.slow.waiting.append((item, bucket, rows))

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.entries))
        known = [e for e in self.slow.waiting if e[0] == entry.item]
        assert self.queue.remove(entry) == bool(known)
        self.slow.waiting = [e for e in self.slow.waiting if e[0] != entry.item]

    @precondition(lambda self: self.slow.waiting)
    @rule(max_rows=st.integers(1, 8), data=st.data())
    def take_batch(self, max_rows: int, data: st.DataObject) -> None:
        heads = sorted(self.queue.heads())
        head = data.draw(st.sampled_from(heads))
        taken = [entry.item for entry in self.queue.take_batch(head, max_rows)]
        assert taken == self.slow.take_batch(str(head.bucket), max_rows)

    @precondition(lambda self: self.slow.waiting)
    @rule(limit=st.integers(1, 9))
    def rows_behind(self, limit: int) -> None:
        head = self.queue.head()
        assert head is not None
        rows = sum(e[2] for e in self.slow.waiting if e[1] == head.bucket)
        assert min(limit, self.queue.rows_behind(head, limit)) == min(limit, rows)

    @invariant()
    def it_is_as_the_slow_one(self) -> None:
        assert len(self.queue) == len(self.slow.waiting)
        head, expected = self.queue.head(), self.slow.head()
        assert (head and head.item) == (expected and expected[0])
        firsts = {
            e[1]: min(o[0] for o in self.slow.waiting if o[1] == e[1]) for e in self.slow.waiting
        }
        assert {str(h.bucket): h.item for h in self.queue.heads()} == firsts


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase


def _push(queue: RequestQueue[str], item: str, bucket: str = "a", rows: int = 1) -> Entry[str]:
    return queue.push(item, bucket=bucket, rows=rows, priority=0, deadline=1.0)


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
            later = queue.push("hasty", bucket=bucket, rows=1, priority=9, deadline=9.0)
            queue.remove(later)
    held = sum(len(heap) for heap in queue._heaps.values())
    assert held < 100
    assert len(queue) == 1
