"""Answering from memory where a model allows it: fresh answers first, old ones last.

A model opts in with `cache_ttl_ms`: an answer that young is given again instead of being computed.
With `cache_stale_ms`, an older answer, up to that age, is the last rung of the ladder: it is given,
marked as stale, when nothing can compute or the queue refuses (RFC 5861, stale-if-error).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from edge_runtime.engine.results import ResultCache, ResultStatistics, result_key
from edge_runtime.engine.runner import Answered, ModelRunner
from edge_runtime.errors import Overloaded, Unavailable
from edge_runtime.protocol.types import InferRequest, Tensor

CACHE: Final = "cache"
STALE: Final = "stale"
LARGE_BYTES: Final = 256 * 1024  # hashing more than this would hold up the loop


class Recall:
    """The answers of all models of an engine. Use on one event loop.

    capacity_bytes: of everything kept; clock: monotonic seconds.
    """

    def __init__(
        self, capacity_bytes: int, pool: Executor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._results = ResultCache(capacity_bytes, clock)
        self._pool = pool

    def statistics(self) -> ResultStatistics:
        return self._results.statistics()

    def forget(self, model: str, version: str) -> None:
        """Drop the answers of a version that is not served any more."""
        self._results.forget(model, version)

    async def answer(
        self, runner: ModelRunner, request: InferRequest, *, deadline: float, priority: int
    ) -> Answered:
        """Answer from memory, or compute; see `ModelRunner.answer` for what is raised."""
        options = runner.options
        if not options.cache_ttl_ms and not options.cache_stale_ms:
            return await runner.answer(request, deadline=deadline, priority=priority)
        work = runner.fit(request)  # a request that does not fit is never looked up
        key = await self._key(runner, request, work.outputs)
        began = time.perf_counter()
        rung = CACHE

        async def compute() -> tuple[Tensor, ...]:
            nonlocal rung
            answered = await runner.answer(request, deadline=deadline, priority=priority)
            rung = answered.rung
            return answered.outputs

        try:
            found = await self._results.get(key, options.cache_ttl_ms / 1e3, compute, deadline)
        except (Unavailable, Overloaded):
            old = self._results.stale(key) if options.cache_stale_ms else None
            if old is None or old.age_s * 1e3 > options.cache_stale_ms:
                raise
            return Answered(old.outputs, STALE, old.age_s)
        if found.how == "computed":
            return Answered(found.outputs, rung)
        runner.stats.recalled(time.perf_counter() - began)
        return Answered(found.outputs, CACHE, found.age_s)

    async def _key(
        self, runner: ModelRunner, request: InferRequest, outputs: tuple[str, ...]
    ) -> bytes:
        size = sum(tensor.data.nbytes for tensor in request.inputs)
        arguments = (runner.model, runner.version, request.inputs, outputs)
        if size <= LARGE_BYTES:
            return result_key(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, result_key, *arguments)
