"""The gateway as MLPerf's "system under test".

The load generator decides when what is sent and judges the latencies; this only carries samples
to the gateway and answers back. Its callbacks come on threads of its own, so they hand over to
an event loop on another thread, which sends on a bounded number of keep-alive connections; a
sample that finds none free waits, and its wait counts as latency.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlperf_loadgen as lg

from load.http1 import Connection, Response, connect

Reporter = Callable[[int], None]


@dataclass(slots=True)
class Failures:
    """What went wrong; the load generator has no word for it."""

    count: int = 0
    first: str = ""

    def add(self, why: str) -> None:
        self.count += 1
        self.first = self.first or why


def complete(query: int) -> None:
    """Tell the load generator that a sample was answered."""
    lg.QuerySamplesComplete([lg.QuerySampleResponse(query, 0, 0)])


@dataclass(slots=True)
class GatewayUnderTest:
    """Sends `requests[index]` for each sample; use as a context manager around the test."""

    host: str
    port: int
    requests: Sequence[bytes]
    connections: int
    report: Reporter = complete
    failures: Failures = field(default_factory=Failures)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _waiting: deque[tuple[int, int]] = field(default_factory=deque)
    _free: list[Connection] = field(default_factory=list)
    _opened: list[Connection] = field(default_factory=list)

    def __enter__(self) -> GatewayUnderTest:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        if self._thread is not None:
            self._thread.join()
        self._loop.close()

    def issue(self, samples: Sequence[Any]) -> None:
        """Take samples (of the load generator's own type); called on its threads."""
        self.send([(int(sample.id), int(sample.index)) for sample in samples])

    def send(self, queries: Sequence[tuple[int, int]]) -> None:
        """Take (query id, sample index) pairs; returns at once."""
        self._loop.call_soon_threadsafe(self._accept, queries)

    def flush(self) -> None:
        """Nothing is held back, so there is nothing to flush."""

    async def _open(self) -> None:
        for _ in range(self.connections):
            self._opened.append(await connect(self.host, self.port))
        self._free += self._opened

    def _stop(self) -> None:
        for connection in self._opened:
            connection.close()
        self._loop.call_soon(self._loop.stop)  # after the transports have said goodbye

    def _accept(self, queries: Sequence[tuple[int, int]]) -> None:
        self._waiting.extend(queries)
        while self._waiting and self._free:
            connection = self._free.pop()
            if connection.is_open:
                self._send(connection)
            else:  # the server closed it while it lay idle
                self._loop.create_task(self._replace())

    def _send(self, connection: Connection) -> None:
        query, index = self._waiting.popleft()

        def answered(response: Response | None) -> None:
            if response is None or response.status != 200:
                why = "the connection was lost" if response is None else str(response.body[:200])
                self.failures.add(why)
            self.report(query)
            if not connection.is_open:
                self._loop.create_task(self._replace())
            elif self._waiting:
                self._send(connection)
            else:
                self._free.append(connection)

        connection.exchange(self.requests[index], answered)

    async def _replace(self) -> None:
        """Open a connection in place of a lost one; without it the rest would wait for ever."""
        while True:
            try:
                connection = await connect(self.host, self.port)
                break
            except OSError:
                await asyncio.sleep(0.1)
        self._opened.append(connection)
        self._free.append(connection)
        self._accept(())
