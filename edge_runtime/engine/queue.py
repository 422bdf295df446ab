"""A bounded queue ordered by urgency: deadlines, and priority that ages (`policies.aging`).

Requests that can be stacked into one batch share a bucket (same outputs, same datatypes, same
shapes beyond the batch dimension). The head of the queue is the most urgent request of all
buckets; a batch is that request and the most urgent of its bucket behind it. Urgency does not
change while a request waits, so heaps stay valid.

Removal is lazy: a cancelled entry stays in its heap as a tombstone until it surfaces, or until
tombstones outnumber the living.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from policies.aging import Urgency, urgency

T = TypeVar("T")


class Entry(Generic[T]):
    """A place in the queue. rows: how much of a batch it takes up."""

    __slots__ = ("bucket", "is_live", "item", "key", "rows")

    def __init__(self, item: T, bucket: Hashable, rows: int, key: Urgency) -> None:
        self.item = item
        self.bucket = bucket
        self.rows = rows
        self.key = key
        self.is_live = True

    def __lt__(self, other: Entry[T]) -> bool:
        return self.key < other.key


class RequestQueue(Generic[T]):
    """Holds up to `capacity` entries; not thread-safe, one event loop owns it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._heaps: dict[Hashable, list[Entry[T]]] = {}
        self._live = 0
        self._stored = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return self._live

    @property
    def is_full(self) -> bool:
        return self._live >= self.capacity

    def push(
        self, item: T, *, bucket: Hashable, rows: int, priority: int, deadline: float, now: float
    ) -> Entry[T]:
        """Add an item. Raises IndexError when full.

        Lower priority numbers go first, but for those who have waited: see `policies.aging`.
        """
        if self.is_full:
            raise IndexError("the queue is full")
        key = self.key_of(priority, now, deadline)
        self._arrivals += 1
        entry = Entry(item, bucket, rows, key)
        heapq.heappush(self._heaps.setdefault(bucket, []), entry)
        self._live += 1
        self._stored += 1
        return entry

    def key_of(self, priority: int, now: float, deadline: float) -> Urgency:
        """Return how urgent a request is that comes next."""
        return urgency(priority, now, deadline, self._arrivals + 1)

    def remove(self, entry: Entry[T]) -> bool:
        """Take an entry out wherever it is; False when it has left already."""
        if not entry.is_live:
            return False
        entry.is_live = False
        self._live -= 1
        if self._stored - self._live > self._live + 64:
            self._compact()
        return True

    def head(self) -> Entry[T] | None:
        """Return the most urgent entry without taking it."""
        return min(self.heads(), default=None)

    def heads(self) -> list[Entry[T]]:
        """Return the most urgent entry of each bucket, in no order."""
        found: list[Entry[T]] = []
        for bucket in list(self._heaps):
            heap = self._heaps[bucket]
            while heap and not heap[0].is_live:
                heapq.heappop(heap)
                self._stored -= 1
            if heap:
                found.append(heap[0])
            else:
                del self._heaps[bucket]
        return found

    def bucket_of(self, head: Entry[T]) -> Iterator[Entry[T]]:
        """Yield those who wait in the head's bucket, in no order."""
        return (entry for entry in self._heaps.get(head.bucket, ()) if entry.is_live)

    def rows_behind(self, head: Entry[T], limit: int) -> int:
        """Count the rows that wait in the head's bucket, up to limit."""
        rows = 0
        for entry in self.bucket_of(head):
            rows += entry.rows
            if rows >= limit:
                break
        return rows

    def rows_before(self, key: Urgency) -> int:
        """Count the rows that go before a request of this urgency, of all buckets."""
        return sum(
            entry.rows
            for heap in self._heaps.values()
            for entry in heap
            if entry.is_live and entry.key < key
        )

    def rows_by_slack(self, now: float, slacks: Sequence[float]) -> list[int]:
        """Count the rows that go before a request of priority 0 with so much time left.

        slacks: seconds to its deadline, ascending, the last infinite.
        """
        rows = [0] * len(slacks)
        for heap in self._heaps.values():
            for entry in heap:
                if entry.is_live:
                    rows[bisect_left(slacks, entry.key[0] - now)] += entry.rows
        return list(accumulate(rows))

    def take_batch(self, head: Entry[T], max_rows: int) -> list[Entry[T]]:
        """Take a bucket's head and what stacks onto it: max_rows at most, or the head alone."""
        heap = self._heaps[head.bucket]
        taken: list[Entry[T]] = []
        rows = 0
        while heap:
            entry = heap[0]
            if entry.is_live and taken and rows + entry.rows > max_rows:
                break
            heapq.heappop(heap)
            self._stored -= 1
            if not entry.is_live:
                continue
            entry.is_live = False
            self._live -= 1
            taken.append(entry)
            rows += entry.rows
        if not heap:
            del self._heaps[head.bucket]
        return taken

    def _compact(self) -> None:
        for bucket in list(self._heaps):
            heap = [entry for entry in self._heaps[bucket] if entry.is_live]
            if heap:
                heapq.heapify(heap)
                self._heaps[bucket] = heap
            else:
                del self._heaps[bucket]
        self._stored = self._live
