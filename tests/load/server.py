"""A tiny HTTP server that answers as it is told: the raw client's counterpart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[[bytes], bytes | None]
"""From a request's body to a whole response; None closes the connection instead."""


@dataclass(slots=True)
class Seen:
    """port: where it listens; heads and bodies: of the requests that came."""

    port: int = 0
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


def response(status: int, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%scontent-length: %d\r\n\r\n" % (status, headers, len(body)) + body


@asynccontextmanager
async def serving(
    answer: Answer, chunk: int = 1 << 20, idle_s: float | None = None
) -> AsyncIterator[Seen]:
    """Serve on a free port; responses are written in pieces of `chunk` bytes.

    A connection on which nothing comes for idle_s is closed.
    """
    seen = Seen()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            while True:
                async with asyncio.timeout(idle_s):
                    head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                body = await reader.readexactly(length)
                seen.heads.append(head)
                seen.bodies.append(body)
                whole = answer(body)
                if whole is None:
                    break
                for at in range(0, len(whole), chunk):
                    writer.write(whole[at : at + chunk])
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
