"""Requests of several kinds that come at a rate, whatever becomes of those before."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from load.access import Access
from load.http1 import Connection, Response, connect
from load.oip import Payload, binary_request


@dataclass(frozen=True, slots=True)
class Kind:
    """What is sent, and how often. tier: that a request insists on, any if empty."""

    payload: Payload
    rate: float
    late_ms: int
    tier: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request: when it was due (unix seconds), how long after it was answered, and by whom."""

    kind: str
    at: float
    taken_s: float
    status: int
    target: str


class Traffic:
    """Sends requests when they are due, on as many connections as that takes."""

    def __init__(self, access: Access, site: str, kinds: Mapping[str, Kind]) -> None:
        self._access = access
        self._rates = {name: kind.rate for name, kind in kinds.items()}
        self._requests = {name: _request(access, site, kind) for name, kind in kinds.items()}
        self._free: list[Connection] = []
        self._tasks: set[asyncio.Task[Seen]] = set()
        self.seen: list[Seen] = []

    async def send(self, kind: str, seconds: float, seed: int) -> tuple[float, float]:
        """Send for a time; return when that was. The same seed has the same arrivals.

        Answers may come later: `finish` waits for them.
        """
        rng = random.Random(seed)  # noqa: S311 (when requests come)
        began = due = time.time()
        while (due := due + rng.expovariate(self._rates[kind])) < began + seconds:
            await asyncio.sleep(max(0.0, due - time.time()))
            task = asyncio.create_task(self._send(kind, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(max(0.0, began + seconds - time.time()))
        return began, began + seconds

    async def ask(self, kind: str) -> Seen:
        """Send one request now, which does not count."""
        found = await self._send(kind, time.time())
        self.seen.remove(found)
        return found

    async def finish(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks)
        for connection in self._free:
            connection.close()

    async def _send(self, kind: str, due: float) -> Seen:
        answer: Response | None = None
        try:
            connection = await self._connection()
            answer = await connection.ask(self._requests[kind])
            self._free.append(connection)
        except OSError:
            pass  # it counts as lost
        status = 0 if answer is None else answer.status
        target = b"" if answer is None else answer.headers.get(b"prime-spark-target", b"")
        found = Seen(kind, due, time.time() - due, status, target.decode("ascii"))
        self.seen.append(found)
        return found

    async def _connection(self) -> Connection:
        while self._free:
            found = self._free.pop()
            if found.is_open:
                return found
        return await connect(self._access.host, self._access.port)


def _request(access: Access, site: str, kind: Kind) -> bytes:
    headers = {"prime-spark-timeout-ms": str(kind.late_ms), "prime-spark-site": site}
    if kind.tier:
        headers["prime-spark-tier"] = kind.tier
    return binary_request(kind.payload, access.authority, access.headers(headers))
