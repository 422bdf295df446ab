"""How much memory models take, and who makes room for whom.

A model's size is what the process grew by while it was loaded, so loads go one after the other
where a limit is set. Before the first load of a version its size is a guess from its file: ONNX
Runtime takes about three times that (docs/explanation/memory.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from edge_runtime.engine.memory import resident_bytes
from edge_runtime.engine.source import ModelSource
from edge_runtime.errors import Unavailable
from policies.eviction import Resident, victims

FILE_FACTOR: Final = 3.2
LEAST_BYTES: Final = 1 << 20  # of bookkeeping and threads, however small the file is

Key = tuple[str, str]


class Residency:
    """Keeps loaded models below a limit (0: none).

    busy: tells whether a version has work; evict: takes one out of memory; clock: any one clock;
    measure: resident bytes of this process.
    """

    def __init__(
        self,
        limit_bytes: int,
        busy: Callable[[Key], bool],
        evict: Callable[[Key], Awaitable[None]],
        clock: Callable[[], float],
        measure: Callable[[], int] = resident_bytes,
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
        self._used_at: dict[Key, float] = {}
        self._pinned: set[Key] = set()
        self._lock = asyncio.Lock()

    @property
    def sizes(self) -> Mapping[Key, int]:
        """Measured bytes of the models that are loaded."""
        return self._sizes

    def touch(self, key: Key) -> None:
        """A model was asked for."""
        self._used_at[key] = self._clock()

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
            await self._make_room(key, self._known.get(key) or _guess(source))
            before = self._measure()
            yield
            size = max(LEAST_BYTES, self._measure() - before)
            self._sizes[key] = self._known[key] = size
            self.evicted.discard(key)
            if source.options.pinned:
                self._pinned.add(key)
            self.touch(key)
            await self._make_room(key, 0, is_best_effort=True)  # the guess may have been low

    async def _make_room(
        self, key: Key, needed_bytes: int, *, is_best_effort: bool = False
    ) -> None:
        residents = [
            Resident(
                name="\0".join(other),
                size_bytes=size,
                used_at=self._used_at.get(other, 0.0),
                is_pinned=other in self._pinned or other == key,
                is_busy=self._busy(other),
            )
            for other, size in self._sizes.items()
        ]
        chosen = victims(residents, needed_bytes, self.limit_bytes)
        if chosen is None and not is_best_effort:
            raise Unavailable(
                f"model '{key[0]}' needs about {needed_bytes >> 20} MiB, and what is loaded and"
                f" pinned or busy leaves too little of {self.limit_bytes >> 20} MiB",
                hint="raise edge.models.max_bytes, or unpin a model",
                retry_after_s=5.0,
            )
        for name in chosen or ():
            model, version = name.split("\0")
            self.evictions += 1
            await self._evict((model, version))
            self._leave((model, version))
            self.evicted.add((model, version))


def _guess(source: ModelSource) -> int:
    try:
        size = max(variant.path.stat().st_size for variant in source.variants)
    except (OSError, ValueError):
        size = 0
    return int(max(LEAST_BYTES, FILE_FACTOR * size))
