"""Requests that are sent when they are due, whatever became of those before them.

A closed loop slows down with its server and so cannot overload it; here arrivals are a Poisson
process of a given rate. Latency counts from when a request was due, and how late the client
itself was is recorded beside it (Tene, "How not to measure latency", on coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from load.http1 import Connection, Response, connect

LOST: Final = 0  # a "status" for requests whose connection was lost


@dataclass(frozen=True, slots=True)
class Sent:
    """One request. due_s: since the start; late_s: due until sent; taken_s: due until answered."""

    due_s: float
    late_s: float
    taken_s: float
    status: int
    has_retry_after: bool


@dataclass(slots=True)
class OpenLoop:
    """Sends one request again and again on a bounded pool of keep-alive connections.

    unsent: requests that were due while every connection was busy; they are not sent later.
    """

    host: str
    port: int
    request: bytes
    connections: int
    sent: list[Sent] = field(default_factory=list)
    unsent: int = 0
    _free: list[Connection] = field(default_factory=list)
    _open: int = 0
    _opening: set[asyncio.Task[None]] = field(default_factory=set)
    _pending: int = 0
    _is_over: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, rate_per_s: float, duration_s: float, rng: random.Random) -> None:
        """Send at a rate for a time, then wait until everything was answered or lost."""
        await self.replay(_poisson(rate_per_s, duration_s, rng))

    async def replay(self, due_s: Iterable[float]) -> None:
        """Send at moments (seconds from now, ascending), then wait as `run` does."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for due in (began + each for each in due_s):
            # Even when sending is behind: answers are read meanwhile.
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._dispatch(loop.time, began, due)
        self._is_over = True
        if self._pending:
            await self._idle.wait()

    def close(self) -> None:
        for connection in self._free:
            connection.close()

    def _dispatch(self, clock: Callable[[], float], began: float, due: float) -> None:
        """Send on a free connection, or on a new one while there may be more of them."""
        while self._free:
            connection = self._free.pop()
            if connection.is_open:  # the server may close idle ones whenever it likes
                self._send(connection, clock, began, due)
                return
            self._open -= 1
        if self._open >= self.connections:
            self.unsent += 1
            return
        self._open += 1
        self._pending += 1
        task = asyncio.get_running_loop().create_task(self._send_on_new(clock, began, due))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _send_on_new(self, clock: Callable[[], float], began: float, due: float) -> None:
        try:
            connection = await connect(self.host, self.port)
        except OSError:
            self._open -= 1
            self._settle(Sent(due - began, 0.0, clock() - due, LOST, False))
            return
        self._pending -= 1
        self._send(connection, clock, began, due)

    def _send(
        self, connection: Connection, clock: Callable[[], float], began: float, due: float
    ) -> None:
        sent_at = clock()

        def answered(response: Response | None) -> None:
            status, has_retry_after = LOST, False
            if response is not None:
                status, has_retry_after = response.status, b"retry-after" in response.headers
            if connection.is_open:
                self._free.append(connection)
            else:
                self._open -= 1
            self._settle(Sent(due - began, sent_at - due, clock() - due, status, has_retry_after))

        self._pending += 1
        connection.exchange(self.request, answered)

    def _settle(self, sent: Sent) -> None:
        self.sent.append(sent)
        self._pending -= 1
        if self._is_over and not self._pending:
            self._idle.set()


def _poisson(rate_per_s: float, duration_s: float, rng: random.Random) -> Iterator[float]:
    due = rng.expovariate(rate_per_s)
    while due <= duration_s:
        yield due
        due += rng.expovariate(rate_per_s)


@dataclass(slots=True)
class ClosedLoop:
    """The other kind: each of some clients sends again when it was answered."""

    host: str
    port: int
    request: bytes
    clients: int
    sent: list[Sent] = field(default_factory=list)

    async def run(self, duration_s: float) -> None:
        """Send for a time; raises OSError when a connection cannot be opened."""
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(self._client(began, duration_s) for _ in range(self.clients)))

    async def _client(self, began: float, duration_s: float) -> None:
        clock = asyncio.get_running_loop().time
        connection = await connect(self.host, self.port)
        while (at := clock()) - began < duration_s:
            try:
                response = await connection.ask(self.request)
            except ConnectionError:
                self.sent.append(Sent(at - began, 0.0, clock() - at, LOST, False))
                connection = await connect(self.host, self.port)
                continue
            has_retry_after = b"retry-after" in response.headers
            self.sent.append(Sent(at - began, 0.0, clock() - at, response.status, has_retry_after))
        connection.close()
