"""The same client for asyncio: calls wait in threads, so that the event loop does not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from edge_runtime.entry.answers import Answer
from edge_runtime.entry.client import EntryClient
from edge_runtime.entry.connections import Call
from edge_runtime.entry.gateways import Seen


class AsyncEntryClient:
    """Wraps an `EntryClient`, which it closes; at_once: requests under way, more wait their turn.

    Cancelling `infer` ends its connection, which tells the gateway to stop.
    """

    def __init__(self, client: EntryClient, at_once: int = 32) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(at_once, "prime-spark-call")

    async def infer(
        self,
        model: str,
        body: Mapping[str, Any] | bytes,
        *,
        version: str | None = None,
        json_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """See `EntryClient.infer`."""
        call = Call()
        waiting = self._threads.submit(
            self._client.call, call, model, body, version, json_bytes, headers, timeout_s
        )
        try:
            return await asyncio.wrap_future(waiting)
        except asyncio.CancelledError:
            call.abandon()
            raise

    async def refresh(self) -> list[Seen]:
        """See `EntryClient.refresh`."""
        return await asyncio.to_thread(self._client.refresh)

    @property
    def gateways(self) -> list[Seen]:
        """All gateways as they were seen last, the nearest first."""
        return self._client.gateways

    async def close(self) -> None:
        """End the threads and the connections; requests under way fail."""
        await asyncio.to_thread(self._client.close)
        await asyncio.to_thread(self._threads.shutdown)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()
