"""Answers that were computed before, and one computation for many who ask for the same.

A model gives the same outputs for the same input bytes, so an answer is found by a digest of
the model, its version, the inputs and the outputs asked for (`result_key`). One cache serves
all models of a process; it is bounded in bytes and gives up the least recently used first. An
answer older than its model's time to live is not given any more, but stays while there is room:
where nothing can compute, `stale` still has it, with its age (RFC 5861, stale-if-error).

Callers who ask for the same missing answer at the same time share one computation (request
coalescing: Go's golang.org/x/sync/singleflight; "collapse requests" in RFC 9111, section 4).
It runs in the task of the caller that began it; the cache has no tasks of its own. Everybody
keeps to their own deadline. An answer, or a failure of the computation, reaches all who wait.
When it is the caller that gave up, they wake: the first of them computes, the others wait again.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from types import TracebackType
from typing import Final, Literal

import numpy as np

from edge_runtime.errors import DeadlineExceeded, Overloaded
from edge_runtime.protocol.binary import as_bytes
from edge_runtime.protocol.types import Tensor

LARGEST_SHARE: Final = 4  # an answer over this part of the cache would push out too many others
ENTRY_BYTES: Final = 300  # measured with tracemalloc: CPython 3.11, numpy 2, 64 bits
TENSOR_BYTES: Final = 260

_DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """An answer. Its arrays are read-only: others hold them too.

    age_s: seconds since it was computed. how: `hit`, from the cache; `shared`, another caller
    computed it meanwhile; `computed`, by this caller.
    """

    outputs: tuple[Tensor, ...]
    age_s: float
    how: Literal["hit", "shared", "computed"]


@dataclass(frozen=True, slots=True, eq=False)
class Cached:
    """An answer that was kept; age_s: seconds since it was computed."""

    outputs: tuple[Tensor, ...]
    age_s: float


@dataclass(frozen=True, slots=True)
class ResultCounts:
    """A model version's requests since it was first asked for or last forgotten.

    hits: answered from the cache; shared: answered by another caller's computation; misses:
    computations begun, whatever became of them; stale: old answers served by `stale`.
    """

    model: str
    version: str
    hits: int
    shared: int
    misses: int
    stale: int


@dataclass(frozen=True, slots=True)
class ResultStatistics:
    """What the cache holds and has done. size_bytes: an estimate; evictions: for lack of room."""

    entries: int
    size_bytes: int
    evictions: int
    models: tuple[ResultCounts, ...]


def result_key(
    model: str, version: str, inputs: Sequence[Tensor], outputs: tuple[str, ...]
) -> bytes:
    """Return what an answer is found by: the model and version, then a digest of the rest.

    Inputs count by name, datatype, shape and exact bytes, whatever order they come in and
    however they lie in memory; outputs count in their order. Takes about 1 ms a megabyte.
    """
    digest = blake2b(_packed([name.encode() for name in outputs]), digest_size=_DIGEST_BYTES)
    for tensor in sorted(inputs, key=lambda tensor: tensor.name):
        data = tensor.data
        dtype = data.dtype.newbyteorder("<")
        shape = struct.pack(f"<{data.ndim}Q", *data.shape)
        kind = (tensor.name.encode(), tensor.datatype.encode(), dtype.str.encode(), shape)
        digest.update(_packed(kind))  # for numbers, their length in bytes follows from it
        if dtype.hasobject:
            digest.update(_packed([as_bytes(element) for element in data.flat]))
        else:
            numbers = np.ascontiguousarray(data, dtype=dtype)
            digest.update(numbers.reshape(-1).view(np.uint8).data)
    return _scope(model, version) + digest.digest()


class ResultCache:
    """Answers by `result_key`, up to capacity_bytes in all. Use on one event loop.

    clock: monotonic seconds, which ages are measured by.
    """

    def __init__(self, capacity_bytes: int, clock: Callable[[], float]) -> None:
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # least recently used first
        self._flights: dict[bytes, _Flight] = {}
        self._counts: defaultdict[bytes, Counter[str]] = defaultdict(Counter)  # by scope
        self._size_bytes = 0
        self._evictions = 0

    async def get(
        self,
        key: bytes,
        ttl_s: float,
        compute: Callable[[], Awaitable[tuple[Tensor, ...]]],
        deadline: float,
    ) -> Found:
        """Return the answer for a key, computed where there is none younger than ttl_s.

        ttl_s 0: only callers of the same time share. deadline: on the loop's clock, for this
        caller alone. Raises DeadlineExceeded, or what the computation raised, be it another
        caller's; only a failure for that caller's deadline makes this one compute instead.
        """
        while True:
            entry = self._entries.get(key)
            if entry is not None and (age_s := self._clock() - entry.computed_at) < ttl_s:
                self._entries.move_to_end(key)
                self._counts[key[:-_DIGEST_BYTES]]["hits"] += 1
                return Found(entry.outputs, age_s, "hit")
            if asyncio.get_running_loop().time() >= deadline:
                raise _late(key)
            if key not in self._flights:
                return await self._compute(key, compute, deadline)
            found = await self._share(key, deadline)
            if found is not None:
                return found

    def stale(self, key: bytes) -> Cached | None:
        """Return what is kept for a key, however old it is, for when nothing can compute."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        self._counts[key[:-_DIGEST_BYTES]]["stale"] += 1
        return Cached(entry.outputs, self._clock() - entry.computed_at)

    def forget(self, model: str, version: str) -> None:
        """Drop the answers and the counts of a version that was unloaded.

        What is being computed for it still reaches those who wait, and is not kept. Looks at
        every entry: 0.1 ms a thousand, 0.3 ms a thousand dropped.
        """
        scope = _scope(model, version)
        self._counts.pop(scope, None)
        for key in [key for key in self._entries if key.startswith(scope)]:
            self._discard(key)
        for key in [key for key in self._flights if key.startswith(scope)]:
            del self._flights[key]

    def clear(self) -> None:
        """Drop all answers, those being computed included; the counts go on."""
        self._entries.clear()
        self._flights.clear()
        self._size_bytes = 0

    def statistics(self) -> ResultStatistics:
        """Return the counters as an immutable value."""
        models = tuple(
            ResultCounts(*_names(scope), n["hits"], n["shared"], n["misses"], n["stale"])
            for scope, n in self._counts.items()
        )
        return ResultStatistics(len(self._entries), self._size_bytes, self._evictions, models)

    async def _compute(
        self, key: bytes, compute: Callable[[], Awaitable[tuple[Tensor, ...]]], deadline: float
    ) -> Found:
        """Compute for this caller and all who come meanwhile."""
        counts = self._counts[key[:-_DIGEST_BYTES]]
        counts["misses"] += 1
        flight = self._flights[key] = _Flight(counts)
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                outputs = await compute()
            is_forgotten = self._flights.get(key) is not flight
            flight.answer = self._take(key, outputs, is_forgotten=is_forgotten)
            return Found(flight.answer.outputs, 0.0, "computed")
        except Exception as error:
            if not limit.expired():
                if not _is_of_deadline(error):
                    flight.error, flight.traceback = error, error.__traceback__
                raise
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            flight.is_over.set()
            # An error's frames would hold these, and these the error: what is in such a circle,
            # tensors among it, stays until the collector comes by.
            del flight, limit
        raise _late(key)  # not in the except clause: the limit's error holds the task, likewise

    async def _share(self, key: bytes, deadline: float) -> Found | None:
        """Wait for another caller's computation; None when that caller gave up."""
        flight = self._flights[key]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await flight.is_over.wait()
            if not flight.is_over.is_set():
                raise _late(key)
            if flight.error is not None:
                # With the traceback as it was, which each who waits would lengthen.
                raise flight.error.with_traceback(flight.traceback)
            if flight.answer is None:
                return None
            flight.counts["shared"] += 1
            age_s = self._clock() - flight.answer.computed_at
            return Found(flight.answer.outputs, age_s, "shared")
        finally:
            del flight  # as above

    def _take(self, key: bytes, outputs: Sequence[Tensor], *, is_forgotten: bool) -> _Entry:
        """Make an answer ready for many, and keep it if it is not too large."""
        size_bytes = _size_bytes(key, outputs)
        is_kept = not is_forgotten and size_bytes * LARGEST_SHARE <= self._capacity_bytes
        answer = tuple(_owned(tensor) if is_kept else tensor for tensor in outputs)
        for tensor in answer:
            tensor.data.flags.writeable = False
        entry = _Entry(answer, self._clock(), size_bytes)
        if is_kept:
            self._discard(key)
            self._entries[key] = entry
            self._size_bytes += size_bytes
            while self._size_bytes > self._capacity_bytes:
                self._discard(next(iter(self._entries)))
                self._evictions += 1
        return entry

    def _discard(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size_bytes -= entry.size_bytes


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    outputs: tuple[Tensor, ...]
    computed_at: float
    size_bytes: int


@dataclass(slots=True, eq=False)
class _Flight:
    """A computation that others wait for. Over with an answer or an error; neither: given up."""

    counts: Counter[str]
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    answer: _Entry | None = None
    error: Exception | None = None
    traceback: TracebackType | None = None


def _is_of_deadline(error: Exception) -> bool:
    """Tell whether a computation failed for its caller's deadline, which is nobody else's."""
    return isinstance(error, DeadlineExceeded) or (
        isinstance(error, Overloaded) and error.details.get("reason") == "deadline"
    )


def _late(key: bytes) -> DeadlineExceeded:
    model, _ = _names(key)
    return DeadlineExceeded(
        f"the deadline passed before model '{model}' could answer", field="timeout"
    )


def _owned(tensor: Tensor) -> Tensor:
    """Copy what is a view on something else, which would stay alive and might be written to."""
    if tensor.data.base is None:
        return tensor
    return Tensor(tensor.name, tensor.datatype, np.array(tensor.data, order="C"))


def _size_bytes(key: bytes, outputs: Sequence[Tensor]) -> int:
    size_bytes = ENTRY_BYTES + len(key)
    for tensor in outputs:
        size_bytes += TENSOR_BYTES + tensor.data.nbytes
        if tensor.data.dtype.hasobject:
            size_bytes += sum(map(sys.getsizeof, tensor.data.flat))
    return size_bytes


def _scope(model: str, version: str) -> bytes:
    """Return what all keys of a version, and no others, begin with."""
    return _packed((model.encode(), version.encode()))


def _names(key: bytes) -> tuple[str, str]:
    """Return the model and version that a key or scope begins with."""
    _, model, version = struct.unpack_from("<3Q", key)  # as `_packed` has it
    names = key[3 * 8 :]
    return names[:model].decode(), names[model : model + version].decode()


def _packed(parts: Sequence[bytes]) -> bytes:
    """Join parts so that no other parts give the same: their number, their lengths, then they."""
    return struct.pack(f"<{len(parts) + 1}Q", len(parts), *map(len, parts)) + b"".join(parts)
