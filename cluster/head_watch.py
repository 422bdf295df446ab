"""Whether the head that a node has joined is there, and still the same one.

A raylet does not follow another head, and takes half a minute to find out that there is another. A
connection that is held tells sooner: a kernel closes those of a process that ends, and a machine
that was restarted answers probes of one that it does not know with a reset (RFC 9293, 3.10.7). A
link that is cut says nothing. Where it is cut just while the head is replaced, this may not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

CONNECT_S: Final = 2.0
GONE_S: Final = 1.0  # that connections are refused; no head starts within that
AGAIN_S: Final = 0.25
PROBE_EVERY_S: Final = 2
MAX_PROBES: Final = 127  # that may stay without an answer, the most that Linux takes


async def call(host: str, port: int) -> None:
    """Connect to the head's port and hang up. Raises OSError, TimeoutError."""
    _, writer = await _connect(host, port)
    await _hang_up(writer)


async def until_gone(host: str, port: int) -> None:
    """Return when the head has ended or another has taken its place; not because of the link."""
    loop = asyncio.get_running_loop()
    refused_since: float | None = None
    while True:
        try:
            await _hold(host, port)
        except ConnectionResetError:
            return
        except ConnectionRefusedError:
            refused_since = loop.time() if refused_since is None else refused_since
            if loop.time() - refused_since >= GONE_S:
                return
        except (OSError, TimeoutError):
            refused_since = None
        else:
            refused_since = None
        await asyncio.sleep(AGAIN_S)


async def _hold(host: str, port: int) -> None:
    """Hold a connection until the other side ends it: it has ended itself, or waits for nobody
    who says nothing. Raises OSError, TimeoutError.
    """
    reader, writer = await _connect(host, port)
    try:
        held = writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_EVERY_S)
        held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_EVERY_S)
        held.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, MAX_PROBES)
        while await reader.read(4096):
            pass
    finally:
        await _hang_up(writer)


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that takes it; refused only if all of them refuse."""
    error: OSError = ConnectionRefusedError()
    async with asyncio.timeout(CONNECT_S):
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for address in dict.fromkeys(str(where[0]) for *_, where in found):
            try:
                return await asyncio.open_connection(address, port)
            except ConnectionRefusedError:
                continue
            except OSError as failed:
                error = failed
    raise error


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
