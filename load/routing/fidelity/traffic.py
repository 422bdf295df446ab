"""What is sent: a part of a trace, and a client that sends it when it is due."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge_runtime.errors import InvalidInput
from load.http1 import Connection, Response, connect
from load.simulator.trace import Trace

CLASSES: Final = ((0.7, 0.225), (0.3, 1.5))  # share, deadline in seconds


SITES: Final = 3


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request is due, seconds from the beginning, and how long after that it is worth."""

    at_s: float
    slack_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an arrival. taken_s: from when it was due; status 0: the connection was lost;
    late_s: by how much the client itself was late.
    """

    arrival: Arrival
    taken_s: float
    status: int
    target: str
    late_s: float


def part(trace: Trace, rate: float, duration_s: float, seed: int) -> list[Arrival]:
    """Return as many of a trace's requests as come in so long at a rate.

    As in the simulator's benchmarks, several sites send, each a part of the trace that is its own.
    Which parts is drawn, and so is the deadline of each request. A part is so many requests in a
    row, their pattern stretched or pressed to the duration, so that the rate is met whatever parts
    they are. Raises InvalidInput for a trace that is too short.
    """
    count = round(rate * duration_s / SITES)
    if not 2 <= count <= len(trace.times):
        raise InvalidInput(
            f"{duration_s:g} s at {rate:.1f} a second take {count} requests of each of {SITES} "
            f"sites; trace '{trace.name}' has {len(trace.times)}",
            field="trace",
        )
    rng = random.Random(seed)  # noqa: S311 (which parts, and deadlines)
    found: list[float] = []
    for _ in range(SITES):
        first = rng.randrange(len(trace.times) - count + 1)
        times = trace.times[first : first + count]
        stretch = duration_s / max(float(times[-1] - times[0]), 1e-9)
        found += ((times - times[0]) * stretch).tolist()
    slacks = [slack_s for _, slack_s in CLASSES]
    drawn = rng.choices(slacks, [share for share, _ in CLASSES], k=len(found))
    return [Arrival(at_s, slack_s) for at_s, slack_s in zip(sorted(found), drawn, strict=True)]


class Client:
    """Sends requests when they are due, whatever became of those before, on as many connections as
    that takes.

    requests: whole requests by their slack.
    """

    def __init__(self, host: str, port: int, requests: Mapping[float, bytes]) -> None:
        self._host = host
        self._port = port
        self._requests = requests
        self._free: list[Connection] = []

    async def replay(self, arrivals: Sequence[Arrival]) -> list[Answer]:
        """Send all and wait for every answer; they are returned in the order of arrival."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as sending:
            tasks: list[asyncio.Task[Answer]] = []
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, began + arrival.at_s - loop.time()))
                tasks.append(sending.create_task(self._send(arrival, began + arrival.at_s)))
        return [task.result() for task in tasks]

    def close(self) -> None:
        for connection in self._free:
            connection.close()

    async def _send(self, arrival: Arrival, due: float) -> Answer:
        clock = asyncio.get_running_loop().time
        late_s = clock() - due
        answer: Response | None = None
        try:
            connection = await self._connection()
            answer = await connection.ask(self._requests[arrival.slack_s])
            self._free.append(connection)
        except OSError:
            pass  # it counts as lost
        status = 0 if answer is None else answer.status
        target = b"" if answer is None else answer.headers.get(b"prime-spark-target", b"")
        return Answer(arrival, clock() - due, status, target.decode("ascii"), late_s)

    async def _connection(self) -> Connection:
        while self._free:
            found = self._free.pop()
            if found.is_open:
                return found
        return await connect(self._host, self._port)
