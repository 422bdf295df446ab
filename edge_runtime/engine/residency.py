"""How much memory models take, and who makes room for whom.

A model's size is what the process grew by while it was loaded, so loads go one after the other
where a limit is set. Before the first load of a version its size is a guess from its file: ONNX
Runtime takes about three times that (docs/explanation/memory.md). What others take meanwhile counts
too: a size above the whole limit is believed when it was measured twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Final

from edge_runtime.engine.memory import data_bytes
from edge_runtime.engine.source import ModelSource
from edge_runtime.errors import Unavailable
from policies.eviction import Resident, victims

FILE_FACTOR: Final = 3.2
LEAST_BYTES: Final = 1 << 20  # of bookkeeping and threads, however small the file is
WAIT_S: Final = 2.0  # for models in use to be idle, before another is refused for want of room

Key = tuple[str, str]


class Residency:
    """Keeps loaded models below a limit (0: none).

    busy: tells whether a version has work; evict: takes one out of memory; clock: any one clock;
    measure: bytes of this process that are no file's.
    """

    def __init__(
        self,
        limit_bytes: int,
        busy: Callable[[Key], bool],
        evict: Callable[[Key], Awaitable[None]],
        clock: Callable[[], float],
        measure: Callable[[], int] = data_bytes,
    ) -> None:
        self.limit_bytes = limit_bytes
        self.evictions = 0
        self.evicted: set[Key] = set()  # to be loaded again when they are asked for
        self._busy = busy
        self._evict = evict
        self._clock = clock
        self._measure = measure
        self._sizes: dict[Key, int] = {}
        self._known: dict[Key, int] = {}  # sizes seen before, for versions that come back
        self._doubted: set[Key] = set()  # whose known size is above the limit, measured once
        self._used_at: dict[Key, float] = {}
        self._pinned: set[Key] = set()
        self._held: Counter[Key] = Counter()
        self._released = asyncio.Event()
        self._lock = asyncio.Lock()

    @property
    def sizes(self) -> Mapping[Key, int]:
        """Measured bytes of the models that are loaded."""
        return self._sizes

    def touch(self, key: Key) -> None:
        """A model was asked for."""
        self._used_at[key] = self._clock()

    @contextmanager
    def hold(self, key: Key) -> Iterator[None]:
        """Keep a version, or one that is about to be loaded, in memory for a `with`."""
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self._released.set()

    def gone(self, key: Key) -> None:
        """A model was taken out of memory for good."""
        self._leave(key)
        self.evicted.discard(key)

    def _leave(self, key: Key) -> None:
        self._sizes.pop(key, None)
        self._used_at.pop(key, None)
        self._pinned.discard(key)

    @asynccontextmanager
    async def room_for(self, source: ModelSource) -> AsyncIterator[None]:
        """Make room, and measure what is loaded within the `with`.

        Raises Unavailable when what may go would not be enough.
        """
        key = (source.model, source.version)
        if not self.limit_bytes:
            yield
            return
        async with self._lock:
            await self._wait_for_room(key, self._expected(key, source))
            before = self._measure()
            yield
            # Somebody else may have given memory back meanwhile.
            size = max(LEAST_BYTES, min(_file_bytes(source)), self._measure() - before)
            self._sizes[key] = size
            self._learn(key, size)
            self.evicted.discard(key)
            if source.options.pinned:
                self._pinned.add(key)
            self.touch(key)
            await self._make_room(key, 0)  # the guess may have been low

    def _expected(self, key: Key, source: ModelSource) -> int:
        known = None if key in self._doubted else self._known.get(key)
        return known or _guess(source)

    def _learn(self, key: Key, size: int) -> None:
        """Remember a size; one that would keep a version out for good has to be seen again."""
        is_first = self._known.get(key, 0) <= self.limit_bytes
        self._known[key] = size
        if size > self.limit_bytes and is_first:
            self._doubted.add(key)
        else:
            self._doubted.discard(key)

    async def _wait_for_room(self, key: Key, needed_bytes: int) -> None:
        """Make room, if need be when models that are in use now have become idle."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not await self._make_room(key, needed_bytes):
                    idle = [replace(one, is_busy=False) for one in self._residents(key)]
                    if victims(idle, needed_bytes, self.limit_bytes) is None:
                        break
                    self._released.clear()
                    await self._released.wait()
                else:
                    return
        except TimeoutError:
            pass
        raise Unavailable(
            f"model '{key[0]}' needs about {needed_bytes >> 20} MiB, and what is loaded and"
            f" pinned or busy leaves too little of {self.limit_bytes >> 20} MiB",
            hint="raise edge.models.max_bytes, or unpin a model",
            retry_after_s=5.0,
        )

    async def _make_room(self, key: Key, needed_bytes: int) -> bool:
        """Evict until there is room; False when what may go now would not be enough."""
        while chosen := victims(self._residents(key), needed_bytes, self.limit_bytes):
            model, version = chosen[0].split("\0")
            self.evicted.add((model, version))  # first: who asks while it goes waits for its return
            self.evictions += 1
            await self._evict((model, version))
            self._leave((model, version))
        return chosen is not None

    def _residents(self, incoming: Key) -> list[Resident]:
        return [
            Resident(
                name="\0".join(key),
                size_bytes=size,
                used_at=self._used_at.get(key, 0.0),
                is_pinned=key in self._pinned or key == incoming,
                is_busy=key in self._held or self._busy(key),
            )
            for key, size in self._sizes.items()
        ]


def _guess(source: ModelSource) -> int:
    return int(max(LEAST_BYTES, FILE_FACTOR * max(_file_bytes(source))))


def _file_bytes(source: ModelSource) -> list[int]:
    try:
        return [variant.path.stat().st_size for variant in source.variants] or [0]
    except OSError:
        return [0]
