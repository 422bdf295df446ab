"""Copies of requests for versions that are being tried, whose answers nobody gets.

A copy goes through routing like any request, behind all others in its queue, and only while few
copies are under way: a shadow that is slow, or fails, costs those who are served nothing but the
work. What came of it is counted, and whether it says the same as the version that answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from edge_runtime.errors import PrimeSparkError
from edge_runtime.protocol.service import CallContext
from edge_runtime.protocol.types import InferRequest, Tensor
from serve_apps.gateway.catalogue import ServedModel
from serve_apps.gateway.dispatch import Dispatcher

logger = logging.getLogger(__name__)

UNDER_WAY: Final = 16
PRIORITY: Final = 1 << 20  # behind everybody who did not ask to be last
CLOSE: Final = 1e-3  # relative; numbers that are closer say the same
SAME, OTHER, FAILED, DROPPED = "same", "other", "failed", "dropped"


class Shadows:
    """The copies of one gateway; use on one event loop, `close` at the end.

    counts: by model, version and what came of it: `same` or `other` answer, `failed`, `dropped`
    because too many were under way.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def send(
        self,
        request: InferRequest,
        versions: Sequence[ServedModel],
        context: CallContext,
        answer: Sequence[Tensor],
    ) -> None:
        """Send copies to some versions. answer: of the version that was chosen."""
        for served in versions:
            key = (request.model, served.version.version)
            if len(self._tasks) >= UNDER_WAY:
                self.counts[*key, DROPPED] += 1
                continue
            copy = self._copy(request, served, context, answer)
            task = asyncio.get_running_loop().create_task(copy)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(
        self,
        request: InferRequest,
        served: ServedModel,
        context: CallContext,
        answer: Sequence[Tensor],
    ) -> None:
        version = served.version.version
        copied = replace(request, id=f"shadow:{request.id}", version=version)
        behind = replace(context, priority=max(PRIORITY, context.priority))
        found = FAILED
        try:
            dispatched = await self._dispatcher.infer(
                copied, version, served.entry.placements, behind
            )
            found = SAME if says_the_same(answer, dispatched.answer.outputs) else OTHER
        except PrimeSparkError as error:
            logger.debug("a shadow of %s failed: %s", request.model, error.message)
        except Exception:
            logger.exception("a shadow of %s failed unexpectedly", request.model)
        self.counts[request.model, version, found] += 1

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def says_the_same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Tell whether two answers are the same but for rounding; names and order count."""
    return len(one) == len(other) and all(map(_is_close, one, other))


def _is_close(one: Tensor, other: Tensor) -> bool:
    a, b = one.data, other.data
    if one.name != other.name or a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind == "f":
        return bool(np.allclose(a, b, rtol=CLOSE, atol=CLOSE, equal_nan=True))
    return bool(np.array_equal(a, b))
